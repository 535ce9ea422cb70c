"""The outputs of a variant: computed by a child, kept in files, and set beside the baseline's.

`python -m penstock_optimizer.accuracy.outputs` computes the outputs of one variant: it reads one line of `OutputsRequest` and
answers with one of `OutputsAnswer`. Each output becomes a `.npy` file, so that nobody needs to hold all of them in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from penstock.errors import Invalid
from penstock.models import Frozen
from penstock.optimization.recipes import canonical_json
from penstock.optimization.variants import DataSplits, Variant
from penstock.serving.manifest import DataType
from penstock_optimizer.accuracy.company import accompany, is_joinable
from penstock_optimizer.accuracy.likeness import plain
from penstock_optimizer.measure.answering import answer_one_request
from penstock_optimizer.measure.channel import ChildGone, ask_once
from penstock_optimizer.measure.variant import is_code, open_variant, read_variant
from penstock_optimizer.samples.arrays import batches, read, rows_of_run
from penstock_runtime.atomic import stage_folder
from penstock_runtime.engines import Array, Engine

CANNOT_RUN: Final = "VariantCannotRun"
OUTPUTS_DIFFER: Final = "OutputsDiffer"
_MODULE: Final = "penstock_optimizer.accuracy.outputs"
_DONE: Final = "outputs.json"
_ROWS: Final = 32


class OutputsRequest(Frozen):
    """Compute the outputs of one variant."""

    variant: str
    """The folder."""
    samples: str
    """A `.npz` file."""
    limit: int | None
    """Of the first samples only."""
    rows: int
    """Of a run, where the model leaves that open."""
    subjects: int
    """How many are also run in company; 0: that was looked at before, or is not asked."""
    output: str
    """The folder to fill."""


class OutputsAnswer(Frozen):
    """What became of it."""

    outputs: tuple[str, ...] = ()
    """Names, in the order of the signature; the n-th is in `n.npy`."""
    problem: str | None = None


def split_of(data: DataSplits, split: str) -> tuple[str, Path]:
    """The split that is used, and its file."""
    used, file = ("validation", data.validation) if split == "validation" and data.validation else ("test", data.test)
    return used, Path(file)


@dataclass(frozen=True)
class Asked:
    """Which outputs of a variant are wanted."""

    data: DataSplits
    split: str
    limit: int | None
    work: Path
    timeout: float
    rows: int = _ROWS
    subjects: int = 0
    sandbox: bool = True
    hidden: tuple[Path, ...] = ()

    @property
    def samples(self) -> Path:
        """The file."""
        return split_of(self.data, self.split)[1]

    def folder(self, variant: Variant) -> Path:
        """Equal for equal models on equal samples: of the files, and of what runs them."""
        said = {
            "files": {name: file.sha256 for name, file in variant.files.items()},
            "engine": variant.engine.model_dump(mode="json"),
            "data": self.data.digest,
            "split": self.split,
            "limit": self.limit,
            "rows": self.rows,
            "subjects": self.subjects,
        }
        return self.work / f"outputs-{hashlib.sha256(canonical_json(said)).hexdigest()[:24]}"


def outputs_of(variant: Path, asked: Asked) -> tuple[dict[str, Array], Path]:
    """A variant's outputs and their folder: kept there, or computed by a child, whose folder is renamed into place."""
    described = read_variant(variant)
    folder = asked.folder(described)
    if not (folder / _DONE).is_file():
        with stage_folder(folder) as scratch:
            request = OutputsRequest(
                variant=str(variant),
                samples=str(asked.samples),
                limit=asked.limit,
                rows=asked.rows,
                subjects=asked.subjects,
                output=str(scratch),
            )
            answer = _ask_child(request, described, asked)
            (scratch / _DONE).write_text(answer.model_dump_json(), encoding="utf-8")
    answer = OutputsAnswer.model_validate_json((folder / _DONE).read_bytes())
    found = {
        name: np.load(folder / f"{index}.npy", mmap_mode="r", allow_pickle=False)
        for index, name in enumerate(answer.outputs)
    }
    return found, folder


def _ask_child(request: OutputsRequest, variant: Variant, asked: Asked) -> OutputsAnswer:
    where = f"{variant.recipe.label} on {Path(request.samples).name}"
    try:
        isolated = asked.sandbox if is_code(variant) else None
        answer = ask_once(
            _MODULE,
            request,
            OutputsAnswer,
            asked.timeout,
            variant.engine.threads,
            isolated=isolated,
            hidden=asked.hidden,
        )
    except ChildGone as error:
        raise Invalid(CANNOT_RUN, f"{where}: {error}") from error
    if answer.problem is not None:
        raise Invalid(CANNOT_RUN, f"{where}: {answer.problem}")
    return answer


def match_outputs(
    ours: dict[str, Array], theirs: dict[str, Array], candidate: Path
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Both models' outputs under the baseline's names: engines and converters rename, but keep the order.

    Where the baseline gives infinities or NaN, the candidate must give the same ones; there both count as 0 from here on.

    Raises:
        Invalid: they are of other shapes or kinds, or other values are not finite.
    """
    named = theirs if set(theirs) == set(ours) else dict(zip(ours, theirs.values(), strict=False))
    label = read_variant(candidate).recipe.label
    if len(named) != len(ours) or len(theirs) != len(ours):
        raise Invalid(OUTPUTS_DIFFER, f"{label} gives {len(theirs)} outputs, the baseline {len(ours)}")
    pairs: dict[str, tuple[Array, Array]] = {}
    for name, wanted in ours.items():
        got = named[name]
        if got.shape != wanted.shape:
            raise Invalid(
                OUTPUTS_DIFFER, f"{label}: output '{name}' is of shape {got.shape}, the baseline's {wanted.shape}"
            )
        if _kind(got) != _kind(wanted):
            raise Invalid(OUTPUTS_DIFFER, f"{label}: output '{name}' is {got.dtype}, the baseline's {wanted.dtype}")
        pairs[name] = _finite_pair(wanted, got, f"{label}: output '{name}'")
    return {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}


def _kind(array: Array) -> str:
    """Of values that compare: numbers with a fraction, strings, and the rest."""
    kind = array.dtype.kind
    return "strings" if kind in "OSU" else "numbers" if kind == "f" else "whole"


def _finite_pair(ours: Array, theirs: Array, where: str) -> tuple[Array, Array]:
    if _is_finite(ours) and _is_finite(theirs):
        return ours, theirs
    wild = ~np.isfinite(ours)
    if not np.array_equal(wild, ~np.isfinite(theirs)):
        raise Invalid(OUTPUTS_DIFFER, f"{where} has values that are not finite, the baseline's has others or none")
    if not np.array_equal(ours[wild], theirs[wild], equal_nan=True):
        raise Invalid(OUTPUTS_DIFFER, f"{where} has other infinities than the baseline's")
    zero = np.zeros((), ours.dtype)
    return np.where(wild, zero, ours), np.where(wild, zero.astype(theirs.dtype), theirs)


def _is_finite(array: Array) -> bool:
    """Looked at in parts: outputs may be larger than memory."""
    rows = range(0, len(array), _ROWS)
    return array.dtype.kind != "f" or all(bool(np.isfinite(array[row : row + _ROWS]).all()) for row in rows)


def compute(request: OutputsRequest) -> OutputsAnswer:
    """In the child: run the variant on the samples and write its outputs.

    Raises:
        Invalid: the variant cannot be loaded, or its outputs do not count samples.
    """
    _, engine = open_variant(Path(request.variant))
    samples = read(Path(request.samples))
    samples = {name: array[: request.limit] for name, array in samples.items()}
    count = len(next(iter(samples.values())))
    given = tuple(spec.name for spec in engine.signature.outputs)
    files: dict[str, Array] = {}
    strings: dict[str, list[Array]] = {}
    done = 0
    for rows, inputs in batches(samples, engine.signature, request.rows):
        outputs = _split_by_sample(_plain(engine, inputs), rows_of_run(engine.signature, rows), rows)
        given = tuple(outputs)
        for index, (name, array) in enumerate(outputs.items()):
            if array.dtype.kind in "OSU":
                strings.setdefault(name, []).append(plain(array))
                continue
            if name not in files:
                path = Path(request.output) / f"{index}.npy"
                files[name] = np.lib.format.open_memmap(
                    path, mode="w+", dtype=array.dtype, shape=(count, *array.shape[1:])
                )
            if files[name].shape[1:] != array.shape[1:]:
                raise Invalid(
                    OUTPUTS_DIFFER,
                    f"output '{name}' has another shape from run to run ({list(files[name].shape[1:])}, then "
                    f"{list(array.shape[1:])}): answers that vary so cannot be compared",
                )
            files[name][done : done + rows] = array
        done += rows
    for index, name in enumerate(given):
        if name in strings:
            # How long the longest is shows only at the end, and a file of objects could not be mapped.
            np.save(Path(request.output) / f"{index}.npy", np.concatenate(strings[name]))
    if request.subjects and is_joinable(engine.signature):
        accompany(partial(_plain, engine), engine.signature, samples, request.subjects, Path(request.output))
    return OutputsAnswer(outputs=given)


def _split_by_sample(outputs: Mapping[str, Array], ran: int, real: int) -> dict[str, Array]:
    """Outputs of a run as one for each sample, on the first axis; without those of samples that only filled the run up.

    Raises:
        Invalid: OutputsDiffer: an output of several samples does not count them.
    """
    found = {}
    for name, array in outputs.items():
        if array.shape[:1] == (ran,):
            found[name] = array[:real]
        elif ran == 1:
            found[name] = array[None]
        else:
            raise Invalid(
                OUTPUTS_DIFFER, f"output '{name}' of shape {array.shape} does not count {ran} samples on its first axis"
            )
    return found


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
    answer_one_request(
        lambda line: compute(OutputsRequest.model_validate_json(line)), lambda problem: OutputsAnswer(problem=problem)
    )


if __name__ == "__main__":
    main()
