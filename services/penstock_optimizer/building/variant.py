"""From a source folder and a recipe to a variant folder: what an engine loads, and `variant.json`.

parent   `check_feasibility`: asks the steps and the engine, loads nothing
`build`: starts the child, and tells how it ended
child    `python -m penstock_optimizer.building.variant`: runs the steps, makes the engine's form, and runs it once
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from penstock.api.conditions import Reason
from penstock.engines import ENGINES, FORMATS
from penstock.errors import Invalid, PenstockError
from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import STEPS, EngineName, EngineSettings, Recipe
from penstock.optimization.variants import (
    BUILT,
    VARIANT_FILE,
    Broken,
    BuildRequest,
    DataSplits,
    Infeasible,
    PreparedSource,
    Variant,
)
from penstock.serving.manifest import DataType, ModelFormat, Signature
from penstock_optimizer.building import forms
from penstock_optimizer.building.delivery import deliver, missing_converter
from penstock_optimizer.building.draft import BuildContext, CannotDo, Draft
from penstock_optimizer.building.source import read_source
from penstock_optimizer.samples.arrays import rows_of_run, run_of
from penstock_optimizer.sandbox import run_module, why_unavailable
from penstock_optimizer.steps import step_runner
from penstock_runtime import engines
from penstock_runtime.atomic import write_atomically
from penstock_runtime.files import describe_folder
from penstock_runtime.hardware import probe

_BUILT: Final = "built.json"
_GRACE: Final = 120.0
"""Seconds that a child gets beyond its budget: a step sizes itself to the budget, and the rest is export and checks."""
_CHECKED_ROWS: Final = (1, 3)


def check_feasibility(
    recipe: Recipe, source: PreparedSource, data: DataSplits, hardware: Hardware
) -> Infeasible | None:
    """Why a recipe cannot be built here, as far as that shows without loading anything; None where it can be tried."""
    engine = recipe.engine.name
    problem = (
        engines.why_unavailable(engine, hardware)
        or _lacks_strings(engine, source)
        or _lacks_program(engine, source)
        or missing_converter(engine)
    )
    if problem is not None:
        return Infeasible(part=engine, reason=problem)
    context = BuildContext(
        source=source, source_folder=Path(), data=data, engine=recipe.engine, hardware=hardware, work=Path(), seed=0,
        threads=recipe.engine.threads, deadline=0.0,
    )  # fmt: skip
    for step in recipe.steps:
        if step.label not in STEPS:
            return Infeasible(part=step.label, reason=f"there is no such step; there are {', '.join(STEPS)}")
        try:
            problem = step_runner(step.label).why_infeasible(step, context)
        except CannotDo as error:
            problem = str(error)
        if problem is not None:
            return Infeasible(part=step.label, reason=problem)
    return None


def _lacks_strings(engine: EngineName, source: PreparedSource) -> str | None:
    tensors = (*source.signature.inputs, *source.signature.outputs)
    strings = [spec.name for spec in tensors if spec.datatype is DataType.BYTES]
    if not strings or ENGINES[engine].strings:
        return None
    return f"{engine} has no strings, and '{strings[0]}' is one: use ONNXRuntime"


def _lacks_program(engine: EngineName, source: PreparedSource) -> str | None:
    if not ENGINES[engine].from_program or source.exported is not None:
        return None
    return f"{engine} runs torch's programs, and the model is {source.format}: give .pt2, TorchScript or safetensors"


def build(request: BuildRequest, *, sandbox: bool, hidden: Sequence[Path] = ()) -> Variant | Infeasible | Broken:
    """Build a variant in a child process. A folder that is whole already is taken as it is.

    Args:
        request: what to build, and where.
        sandbox: whether code of the model runs isolated. False only where all of this is in a sandbox.
        hidden: folders and files that the model's code must not see.

    Returns:
        What came of it. Whatever a step does, nothing is raised.
    """
    output = Path(request.output).absolute()
    if (output / VARIANT_FILE).is_file():
        return Variant.model_validate_json((output / VARIANT_FILE).read_bytes())
    output.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".building-", dir=output.parent))
    try:
        return _build_in_child(request, work, output, sandbox=sandbox, hidden=hidden)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _build_in_child(
    request: BuildRequest, work: Path, output: Path, *, sandbox: bool, hidden: Sequence[Path]
) -> Variant | Infeasible | Broken:
    source = read_source(Path(request.source))
    absolute = request.model_copy(
        update={
            "source": str(Path(request.source).absolute()),
            "output": str(work / "variant"),
            "data": _with_absolute_paths(request.data),
        }
    )
    code = source.import_path is not None or source.exported is not None or FORMATS[source.format].code
    isolated = sandbox and (code or why_unavailable() is None)
    try:
        ended = run_module(
            "penstock_optimizer.building.variant", absolute.model_dump_json(), home=work, isolated=isolated,
            timeout=request.budget_seconds + _GRACE, threads=request.threads, hidden=hidden,
        )  # fmt: skip
    except Invalid as error:
        return Infeasible(part=source.import_path or request.recipe.engine.name, reason=error.message)
    if not (work / _BUILT).is_file():
        return Broken(part=_part(work, request.recipe), message=ended.reason)
    built = BUILT.validate_json((work / _BUILT).read_bytes())
    if isinstance(built, Variant):
        (work / "variant").rename(output)
    return built


def _with_absolute_paths(data: DataSplits) -> DataSplits:
    paths = {"calibration": data.calibration, "train": data.train, "validation": data.validation, "test": data.test}
    return data.model_copy(
        update={split: None if path is None else str(Path(path).absolute()) for split, path in paths.items()}
    )


def _part(work: Path, recipe: Recipe) -> str:
    """What was under way when the child ended."""
    note = work / "under-way"
    return note.read_text(encoding="utf-8") if note.is_file() else recipe.engine.name


def main() -> None:
    """The child: read a request, build, and leave what came of it beside the variant folder."""
    request = BuildRequest.model_validate_json(sys.stdin.read())
    output = Path(request.output)
    work = output.parent
    built = _build_here(request, output, work)
    target = work / _BUILT
    write_atomically(target, built.model_dump_json().encode())


def _build_here(request: BuildRequest, output: Path, work: Path) -> Variant | Infeasible | Broken:
    started = time.monotonic()
    source = read_source(Path(request.source))
    scratch = work / "scratch"
    scratch.mkdir()
    context = BuildContext(
        source=source, source_folder=Path(request.source), data=request.data, engine=request.recipe.engine,
        hardware=probe(), work=scratch, seed=request.seed, threads=request.threads,
        deadline=started + request.budget_seconds,
    )  # fmt: skip
    _seed(request.seed, request.threads, torch_needed=_trains(request.recipe))
    part = request.recipe.engine.name.value
    try:
        draft = forms.source_draft(context)
        for step in request.recipe.steps:
            part = _announce(work, step.label)
            problem = step_runner(step.label).why_infeasible(step, context)
            if problem is not None:
                return Infeasible(part=part, reason=problem)
            step_runner(step.label).apply(step, draft, context)
        part = _announce(work, request.recipe.engine.name)
        output.mkdir()
        return _finish(request.recipe, draft, context, output, started)
    except CannotDo as error:
        return Infeasible(part=part, reason=str(error))
    except PenstockError as error:
        return Broken(part=part, message=f"{error.reason}: {error.message}")
    except Exception as error:  # noqa: BLE001 -- a step may raise anything; it is kept as a trial, and stderr has the trace
        traceback.print_exc()
        return Broken(part=part, message=f"{type(error).__name__}: {str(error).strip()[:1000]}")


def _trains(recipe: Recipe) -> bool:
    return any(STEPS[step.label].training for step in recipe.steps) or ENGINES[recipe.engine.name].from_program


def _seed(seed: int, threads: int, *, torch_needed: bool) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 -- libraries that draw from the old generator
    if torch_needed:
        import torch  # noqa: PLC0415 -- torch takes seconds

        torch.manual_seed(seed)
        torch.set_num_threads(threads)


def _announce(work: Path, part: str) -> str:
    (work / "under-way").write_text(part, encoding="utf-8")
    return part


def _finish(recipe: Recipe, draft: Draft, context: BuildContext, output: Path, started: float) -> Variant:
    format_, entrypoint = deliver(draft, context, output)
    engine = draft.engine or recipe.engine
    signature = _signature(context.source.signature, format_)
    _run_once(output / entrypoint, engine, signature, context)
    variant = Variant(
        recipe=recipe,
        format=format_,
        entrypoint=entrypoint,
        signature=signature,
        files=describe_folder(output, leave_out=[VARIANT_FILE]),
        engine=engine,
        weight_precision=draft.weight_precision,
        built_precision=engine.precision,
        build_seconds=time.monotonic() - started,
        notes=tuple(draft.notes),
        figures=draft.figures,
    )
    (output / VARIANT_FILE).write_text(variant.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return variant


def _signature(source: Signature, format_: ModelFormat) -> Signature:
    """The source's; with a batch of one where the format's shapes are fixed."""
    if not FORMATS[format_].fixed_batch:
        return source
    one = {
        kind: tuple(
            each.model_copy(update={"shape": (1, *each.shape[1:])} if each.shape[:1] == (-1,) else {})
            for each in tensors
        )
        for kind, tensors in (("inputs", source.inputs), ("outputs", source.outputs))
    }
    return source.model_copy(update=one)


def _run_once(entrypoint: Path, engine: EngineSettings, signature: Signature, context: BuildContext) -> None:
    """Load and run the result as the replica will.

    Raises:
        Invalid: ModelInvalid: it does not load, or gives other shapes. Whether its numbers are right is for the gate.
    """
    loaded = engines.load_engine(entrypoint, engine, signature, trusted=True)
    for rows in dict.fromkeys(rows_of_run(signature, rows) for rows in _CHECKED_ROWS):
        samples = forms.calibration(context, rows)
        count = len(next(iter(samples.values())))
        outputs = loaded.run(run_of(samples, signature, np.arange(rows) % count))
        for spec in signature.outputs:
            array = outputs[spec.name]
            if rows > 1 and spec.shape[:1] == (-1,) and array.shape[0] != rows:
                raise Invalid(Reason.MODEL_INVALID, f"output '{spec.name}' has {array.shape[0]} rows for {rows}")


if __name__ == "__main__":
    main()
