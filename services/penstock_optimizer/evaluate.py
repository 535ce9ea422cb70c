"""The paired accuracy test: both variants' outputs on the same samples, and what the candidate loses.

`python -m penstock_optimizer.evaluate` computes the outputs of one variant: it reads one line of `OutputsRequest` and
answers with one of `OutputsAnswer`. Each output becomes a `.npy` file, so that nobody needs to hold all of them in memory.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from penstock.api.optimization import AccuracyConstraint
from penstock.errors import Invalid
from penstock.models import Frozen
from penstock.optimization.measurements import AccuracyResult, MetricName
from penstock.optimization.recipes import canonical_json
from penstock.optimization.variants import DataSplits, Variant
from penstock.serving.manifest import DataType
from penstock_optimizer.imported import METRIC_FAILED, MODULE, Figures, FiguresRequest
from penstock_optimizer.measure.channel import Channel, ChildGone, serve_lines
from penstock_optimizer.measure.variant import opened, read_variant
from penstock_optimizer.metrics import Outputs, Scored, chosen_metric, compare, compared_figures
from penstock_optimizer.samples import LABELS, batches, read
from penstock_optimizer.sandbox import run_module
from penstock_runtime.engines import Array, Engine

logger = logging.getLogger(__name__)

CANNOT_RUN: Final = "VariantCannotRun"
OUTPUTS_DIFFER: Final = "OutputsDiffer"
_MODULE: Final = "penstock_optimizer.evaluate"
_DONE: Final = "outputs.json"
_ROWS: Final = 32
_METRIC_SECONDS: Final = 300.0


class OutputsRequest(Frozen):
    """Compute the outputs of one variant."""

    variant: str
    """The folder."""
    samples: str
    """A `.npz` file."""
    limit: int | None
    """Of the first samples only."""
    output: str
    """The folder to fill."""


class OutputsAnswer(Frozen):
    """What became of it."""

    outputs: tuple[str, ...] = ()
    """Names, in the order of the signature; the n-th is in `n.npy`."""
    problem: str | None = None


def evaluate(
    baseline: Path,
    candidate: Path,
    data: DataSplits,
    constraint: AccuracyConstraint,
    *,
    split: str,
    limit: int | None,
    work: Path,
    python_path: tuple[str, ...] = (),
    sandbox: bool = True,
    hidden: Sequence[Path] = (),
    timeout: float = 900.0,
) -> AccuracyResult:
    """Compare a candidate with the baseline, sample by sample.

    Args:
        baseline: its variant folder.
        candidate: its variant folder.
        data: the prepared samples.
        constraint: which metric, and with what confidence.
        split: `validation` or `test`. Without a validation split the test split is used; the result says which.
        limit: of the first samples only, for the cheap gate.
        work: where outputs are kept; those that are there already are not computed again.
        python_path: folders to import the metric from, where it is an import path.
        sandbox: whether an import path runs without network and with an environment of its own.
        hidden: folders and files that it must not see.
        timeout: seconds for one variant's outputs.

    Raises:
        Invalid: VariantCannotRun, OutputsDiffer, MetricUnsuited or TooFewSamples, each saying why.
    """
    used, file = ("validation", data.validation) if split == "validation" and data.validation else ("test", data.test)
    samples = Path(file)
    work.mkdir(parents=True, exist_ok=True)
    ours = _outputs(baseline, samples, limit, work / f"{_name(baseline, data, used, limit)}", timeout)
    theirs = _outputs(candidate, samples, limit, work / f"{_name(candidate, data, used, limit)}", timeout)
    theirs = _matched(ours, theirs, candidate)
    labels = read(samples).get(LABELS)
    labels = labels if labels is None or limit is None else labels[:limit]
    metric = chosen_metric(constraint, labelled=labels is not None)
    confidence = float(constraint.confidence)
    if metric is MetricName.IMPORT_PATH:
        if constraint.import_path is None:
            raise Invalid(METRIC_FAILED, "the metric ImportPath needs constraints.accuracy.importPath")
        found = compared_figures(
            _imported(
                constraint.import_path, python_path, (ours, theirs), labels, work, sandbox=sandbox, hidden=hidden
            ),
            confidence,
        )
    else:
        found = compare(metric, ours, theirs, labels, top_k=constraint.top_k, confidence=confidence)
    return AccuracyResult(
        metric=metric,
        samples=len(next(iter(ours.values()))),
        baseline=found.baseline,
        candidate=found.candidate,
        loss=found.loss,
        loss_bound=found.loss_bound,
        confidence=confidence,
        baseline_right_candidate_wrong=found.lost,
        candidate_right_baseline_wrong=found.won,
        split=used,
    )


def _name(folder: Path, data: DataSplits, split: str, limit: int | None) -> str:
    """Equal for equal models on equal samples: of the files, and of what runs them."""
    variant = read_variant(folder)
    said = {
        "files": {name: file.sha256 for name, file in variant.files.items()},
        "engine": variant.engine.model_dump(mode="json"),
        "data": data.digest,
        "split": split,
        "limit": limit,
    }
    return f"outputs-{hashlib.sha256(canonical_json(said)).hexdigest()[:24]}"


def _outputs(variant: Path, samples: Path, limit: int | None, folder: Path, timeout: float) -> dict[str, Array]:
    """A variant's outputs: those kept in the folder, or computed by a child, whose folder is renamed into place."""
    if not (folder / _DONE).is_file():
        scratch = Path(tempfile.mkdtemp(prefix=".outputs-", dir=folder.parent))
        try:
            request = OutputsRequest(variant=str(variant), samples=str(samples), limit=limit, output=str(scratch))
            answer = _asked(request, read_variant(variant), timeout)
            (scratch / _DONE).write_text(answer.model_dump_json(), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            scratch.replace(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    answer = OutputsAnswer.model_validate_json((folder / _DONE).read_bytes())
    return {
        name: np.load(folder / f"{index}.npy", mmap_mode="r", allow_pickle=False)
        for index, name in enumerate(answer.outputs)
    }


def _asked(request: OutputsRequest, variant: Variant, timeout: float) -> OutputsAnswer:
    where = f"{variant.recipe.label} on {Path(request.samples).name}"
    try:
        with Channel(_MODULE, variant.engine.threads) as channel:
            channel.tell(request.model_dump_json())
            answer = OutputsAnswer.model_validate_json(channel.hear(timeout))
    except ChildGone as error:
        raise Invalid(CANNOT_RUN, f"{where}: {error}") from error
    if answer.problem is not None:
        raise Invalid(CANNOT_RUN, f"{where}: {answer.problem}")
    return answer


def _imported(
    import_path: str,
    python_path: tuple[str, ...],
    outputs: tuple[Outputs, Outputs],
    labels: Array | None,
    work: Path,
    *,
    sandbox: bool,
    hidden: Sequence[Path],
) -> Scored:
    """The figures of the user's own metric, from its child."""
    with tempfile.TemporaryDirectory(prefix=".metric-", dir=work) as scratch:
        label_file = Path(scratch) / "labels.npy"
        if labels is not None:
            np.save(label_file, labels)
        ours, theirs = ({name: _file_of(array) for name, array in each.items()} for each in outputs)
        request = FiguresRequest(
            import_path=import_path,
            python_path=python_path,
            baseline=ours,
            candidate=theirs,
            labels=None if labels is None else str(label_file),
            answer=str(Path(scratch) / "figures.json"),
        )
        ended = run_module(
            MODULE,
            request.model_dump_json(),
            home=Path(scratch),
            isolated=sandbox,
            timeout=_METRIC_SECONDS,
            hidden=hidden,
        )
        if ended.status != 0 or ended.timed_out:
            raise Invalid(METRIC_FAILED, f"{import_path}: {ended.reason}")
        answer = Figures.model_validate_json(Path(request.answer).read_bytes())
    if answer.problem is not None:
        raise Invalid(METRIC_FAILED, answer.problem)
    return Scored(np.asarray(answer.baseline), np.asarray(answer.candidate))


def _file_of(array: Array) -> str:
    assert isinstance(array, np.memmap)  # noqa: S101 -- `_outputs` maps files
    return str(array.filename)


def _matched(ours: Outputs, theirs: dict[str, Array], candidate: Path) -> dict[str, Array]:
    """The candidate's outputs under the baseline's names: engines and converters rename, but keep the order.

    Raises:
        Invalid: they are of other shapes, or have values that are not finite where the baseline's are.
    """
    named = theirs if set(theirs) == set(ours) else dict(zip(ours, theirs.values(), strict=False))
    label = read_variant(candidate).recipe.label
    if len(named) != len(ours):
        raise Invalid(OUTPUTS_DIFFER, f"{label} gives {len(theirs)} outputs, the baseline {len(ours)}")
    for name, wanted in ours.items():
        got = named[name]
        if got.shape != wanted.shape:
            raise Invalid(
                OUTPUTS_DIFFER, f"{label}: output '{name}' is of shape {got.shape}, the baseline's {wanted.shape}"
            )
        if not _finite(got) and _finite(wanted):
            raise Invalid(
                OUTPUTS_DIFFER, f"{label}: output '{name}' has values that are not finite, the baseline's has none"
            )
    return {name: named[name] for name in ours}


def _finite(array: Array) -> bool:
    """Looked at in parts: outputs may be larger than memory."""
    rows = range(0, len(array), _ROWS)
    return array.dtype.kind != "f" or all(bool(np.isfinite(array[row : row + _ROWS]).all()) for row in rows)


def compute(request: OutputsRequest) -> OutputsAnswer:
    """In the child: run the variant on the samples and write its outputs.

    Raises:
        Invalid: the variant cannot be loaded, or its outputs do not count samples.
    """
    variant, engine = opened(Path(request.variant))
    samples = read(Path(request.samples))
    samples = {name: array[: request.limit] for name, array in samples.items()}
    count = len(next(iter(samples.values())))
    names = tuple(spec.name for spec in variant.signature.outputs)
    files: dict[str, Array] = {}
    done = 0
    for rows, inputs in batches(samples, engine.signature, _ROWS):
        outputs = _plain(engine, inputs)
        for index, (name, array) in enumerate(outputs.items()):
            if array.ndim == 0 or len(array) < rows:
                raise Invalid(
                    OUTPUTS_DIFFER, f"output '{name}' of shape {array.shape} does not count samples on its first axis"
                )
            if name not in files:
                path = Path(request.output) / f"{index}.npy"
                files[name] = np.lib.format.open_memmap(
                    path, mode="w+", dtype=array.dtype, shape=(count, *array.shape[1:])
                )
            files[name][done : done + rows] = array[:rows]
        done += rows
    return OutputsAnswer(outputs=tuple(files) or names)


def _plain(engine: Engine, inputs: dict[str, Array]) -> dict[str, Array]:
    """Outputs as numpy knows them: BF16's bits as floats."""
    outputs = engine.run(inputs)
    bits = {spec.name for spec in engine.signature.outputs if spec.datatype is DataType.BF16}
    return {
        name: (array.astype(np.uint32) << 16).view(np.float32) if name in bits else array
        for name, array in outputs.items()
    }


def main() -> None:
    """Answer one request."""
    requests, answers = serve_lines()
    try:
        answer = compute(OutputsRequest.model_validate_json(requests.readline()))
    except Invalid as error:
        answer = OutputsAnswer(problem=error.message)
    except Exception as error:
        logger.exception("the outputs could not be computed")
        answer = OutputsAnswer(problem=f"{type(error).__name__}: {error}")
    answers.write(answer.model_dump_json() + "\n")


if __name__ == "__main__":
    main()
