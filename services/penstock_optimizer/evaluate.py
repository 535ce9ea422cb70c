"""The paired accuracy test: both variants' outputs on the same samples, and what the candidate loses.

`python -m penstock_optimizer.evaluate` computes the outputs of one variant: it reads one line of `OutputsRequest` and
answers with one of `OutputsAnswer`. Each output becomes a `.npy` file, so that nobody needs to hold all of them in memory.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from penstock.api.optimization import AccuracyConstraint
from penstock.errors import Invalid
from penstock.models import Frozen
from penstock.optimization.measurements import AccuracyControl, AccuracyResult, Judgement, MetricName
from penstock.optimization.recipes import canonical_json
from penstock.optimization.variants import DataSplits, Variant
from penstock.serving.manifest import DataType
from penstock_optimizer.company import accompany, joinable, looked_at
from penstock_optimizer.imported import METRIC_FAILED, MODULE, Figures, FiguresRequest
from penstock_optimizer.likeness import plain
from penstock_optimizer.measure.channel import Channel, ChildGone, serve_lines
from penstock_optimizer.measure.variant import is_code, opened, read_variant
from penstock_optimizer.metrics import Judge, Outputs, Scored
from penstock_optimizer.metrics import judgements as choose
from penstock_optimizer.samples import LABELS, batches, read, rows_of_run
from penstock_optimizer.sandbox import run_module
from penstock_runtime.engines import Array, Engine

logger = logging.getLogger(__name__)

CANNOT_RUN: Final = "VariantCannotRun"
OUTPUTS_DIFFER: Final = "OutputsDiffer"
_MODULE: Final = "penstock_optimizer.evaluate"
_DONE: Final = "outputs.json"
_ROWS: Final = 32
_SUBJECTS: Final = 16
"""Samples of the full test that are also run in company."""
_FEW_SUBJECTS: Final = 4
"""At the gate."""
_METRIC_SECONDS: Final = 300.0


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


def evaluate(
    baseline: Path,
    candidate: Path,
    data: DataSplits,
    constraint: AccuracyConstraint,
    *,
    split: str,
    limit: int | None,
    work: Path,
    judgements: Sequence[Judgement] = (),
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
        judgements: of the session, from `look_at_baseline`; without them they are chosen on these samples.
        python_path: folders to import the metric from, where it is an import path.
        sandbox: whether an import path, and a variant that is code, runs without network and with an environment of its own.
        hidden: folders and files that it must not see.
        timeout: seconds for one variant's outputs.

    Raises:
        Invalid: VariantCannotRun, OutputsDiffer, MetricUnsuited or TooFewSamples, each saying why.
    """
    used, samples = _split(data, split)
    work.mkdir(parents=True, exist_ok=True)
    asked = _Asked(data, used, limit, work, timeout, sandbox=sandbox, hidden=tuple(hidden))
    ours, _ = _outputs(baseline, asked)
    subjects = _SUBJECTS if limit is None else _FEW_SUBJECTS
    given, folder = _outputs(candidate, replace(asked, subjects=subjects))
    base, theirs = _matched(ours, given, candidate)
    metric = _Metric(constraint, python_path, work, sandbox, tuple(hidden))
    judge = _judge(metric, samples, limit)
    chosen = judgements or choose(constraint, base, judge.labels, synthetic=data.synthetic)
    names = tuple(given) if set(given) == set(ours) else tuple(ours)
    company = looked_at(folder, names, theirs, chosen, judge)
    if company is not None and company.problem is not None:
        # It is served alone, so it is judged alone.
        base, theirs = _matched(ours, _outputs(candidate, replace(asked, rows=1))[0], candidate)
    result = judge.judged(chosen, base, theirs, used).model_copy(update={"company": company})
    if limit is not None:
        return result
    return result.model_copy(update={"controls": judge.controls(chosen, base)})


def look_at_baseline(
    baseline: Path,
    data: DataSplits,
    constraint: AccuracyConstraint,
    *,
    limit: int | None,
    work: Path,
    python_path: tuple[str, ...] = (),
    sandbox: bool = True,
    hidden: Sequence[Path] = (),
    timeout: float = 900.0,
) -> tuple[tuple[Judgement, ...], tuple[AccuracyControl, ...]]:
    """By what candidates will be judged, and whether that can tell a ruined one: all before the first is built.

    Args:
        baseline: its variant folder.
        data: the prepared samples, of which the validation split is looked at.
        constraint: which metric, and what may be lost.
        limit: as for the gate.
        work: as for `evaluate`, which finds the outputs there.
        python_path: folders to import the metric from.
        sandbox: whether an import path, and a baseline that is code, runs isolated.
        hidden: folders and files that it must not see.
        timeout: seconds for the outputs.

    Raises:
        Invalid: as `evaluate`.
    """
    used, samples = _split(data, "validation")
    work.mkdir(parents=True, exist_ok=True)
    ours, _ = _outputs(baseline, _Asked(data, used, limit, work, timeout, sandbox=sandbox, hidden=tuple(hidden)))
    ours, _ = _matched(ours, ours, baseline)
    judge = _judge(_Metric(constraint, python_path, work, sandbox, tuple(hidden)), samples, limit)
    return judge.fitting(choose(constraint, ours, judge.labels, synthetic=data.synthetic), ours)


def _split(data: DataSplits, split: str) -> tuple[str, Path]:
    """The split that is used, and its file."""
    used, file = ("validation", data.validation) if split == "validation" and data.validation else ("test", data.test)
    return used, Path(file)


@dataclass(frozen=True)
class _Metric:
    """The user's own metric, and how it is run."""

    constraint: AccuracyConstraint
    python_path: tuple[str, ...]
    work: Path
    sandbox: bool
    hidden: tuple[Path, ...]

    def figures(self, baseline: Outputs, candidate: Outputs, labels: Array | None) -> Scored:
        """From its child."""
        assert self.constraint.import_path is not None  # noqa: S101 -- asked for only where there is one
        return _imported(self.constraint.import_path, self, (baseline, candidate), labels)


def _judge(metric: _Metric, samples: Path, limit: int | None) -> Judge:
    constraint = metric.constraint
    if constraint.metric is MetricName.IMPORT_PATH and constraint.import_path is None:
        raise Invalid(METRIC_FAILED, "the metric ImportPath needs constraints.accuracy.importPath")
    labels = read(samples).get(LABELS)
    labels = labels if labels is None or limit is None else labels[:limit]
    return Judge(constraint, labels, metric.figures if constraint.import_path is not None else None)


@dataclass(frozen=True)
class _Asked:
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
        return _split(self.data, self.split)[1]

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


def _outputs(variant: Path, asked: _Asked) -> tuple[dict[str, Array], Path]:
    """A variant's outputs and their folder: kept there, or computed by a child, whose folder is renamed into place."""
    described = read_variant(variant)
    folder = asked.folder(described)
    if not (folder / _DONE).is_file():
        scratch = Path(tempfile.mkdtemp(prefix=".outputs-", dir=folder.parent))
        try:
            request = OutputsRequest(
                variant=str(variant),
                samples=str(asked.samples),
                limit=asked.limit,
                rows=asked.rows,
                subjects=asked.subjects,
                output=str(scratch),
            )
            answer = _asked(request, described, asked)
            (scratch / _DONE).write_text(answer.model_dump_json(), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            scratch.replace(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    answer = OutputsAnswer.model_validate_json((folder / _DONE).read_bytes())
    found = {
        name: np.load(folder / f"{index}.npy", mmap_mode="r", allow_pickle=False)
        for index, name in enumerate(answer.outputs)
    }
    return found, folder


def _asked(request: OutputsRequest, variant: Variant, asked: _Asked) -> OutputsAnswer:
    where = f"{variant.recipe.label} on {Path(request.samples).name}"
    try:
        isolated = asked.sandbox if is_code(variant) else None
        with Channel(_MODULE, variant.engine.threads, isolated=isolated, hidden=asked.hidden) as channel:
            channel.tell(request.model_dump_json())
            answer = OutputsAnswer.model_validate_json(channel.hear(asked.timeout))
    except ChildGone as error:
        raise Invalid(CANNOT_RUN, f"{where}: {error}") from error
    if answer.problem is not None:
        raise Invalid(CANNOT_RUN, f"{where}: {answer.problem}")
    return answer


def _imported(import_path: str, metric: _Metric, outputs: tuple[Outputs, Outputs], labels: Array | None) -> Scored:
    """The figures of the user's own metric, from its child."""
    with tempfile.TemporaryDirectory(prefix=".metric-", dir=metric.work) as scratch:
        label_file = Path(scratch) / "labels.npy"
        if labels is not None:
            np.save(label_file, labels)
        ours, theirs = (
            {
                name: _file_of(array, Path(scratch) / f"{side}-{index}.npy")
                for index, (name, array) in enumerate(each.items())
            }
            for side, each in enumerate(outputs)
        )
        request = FiguresRequest(
            import_path=import_path,
            python_path=metric.python_path,
            baseline=ours,
            candidate=theirs,
            labels=None if labels is None else str(label_file),
            answer=str(Path(scratch) / "figures.json"),
        )
        ended = run_module(
            MODULE,
            request.model_dump_json(),
            home=Path(scratch),
            isolated=metric.sandbox,
            timeout=_METRIC_SECONDS,
            hidden=metric.hidden,
        )
        if ended.status != 0 or ended.timed_out:
            raise Invalid(METRIC_FAILED, f"{import_path}: {ended.reason}")
        answer = Figures.model_validate_json(Path(request.answer).read_bytes())
    if answer.problem is not None:
        raise Invalid(METRIC_FAILED, answer.problem)
    return Scored(np.asarray(answer.baseline), np.asarray(answer.candidate))


def _file_of(array: Array, path: Path) -> str:
    np.save(path, array)
    return str(path)


def _matched(
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
    if _finite(ours) and _finite(theirs):
        return ours, theirs
    wild = ~np.isfinite(ours)
    if not np.array_equal(wild, ~np.isfinite(theirs)):
        raise Invalid(OUTPUTS_DIFFER, f"{where} has values that are not finite, the baseline's has others or none")
    if not np.array_equal(ours[wild], theirs[wild], equal_nan=True):
        raise Invalid(OUTPUTS_DIFFER, f"{where} has other infinities than the baseline's")
    zero = np.zeros((), ours.dtype)
    return np.where(wild, zero, ours), np.where(wild, zero.astype(theirs.dtype), theirs)


def _finite(array: Array) -> bool:
    """Looked at in parts: outputs may be larger than memory."""
    rows = range(0, len(array), _ROWS)
    return array.dtype.kind != "f" or all(bool(np.isfinite(array[row : row + _ROWS]).all()) for row in rows)


def compute(request: OutputsRequest) -> OutputsAnswer:
    """In the child: run the variant on the samples and write its outputs.

    Raises:
        Invalid: the variant cannot be loaded, or its outputs do not count samples.
    """
    _, engine = opened(Path(request.variant))
    samples = read(Path(request.samples))
    samples = {name: array[: request.limit] for name, array in samples.items()}
    count = len(next(iter(samples.values())))
    given = tuple(spec.name for spec in engine.signature.outputs)
    files: dict[str, Array] = {}
    strings: dict[str, list[Array]] = {}
    done = 0
    for rows, inputs in batches(samples, engine.signature, request.rows):
        outputs = _by_sample(_plain(engine, inputs), rows_of_run(engine.signature, rows), rows)
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
    if request.subjects and joinable(engine.signature):
        accompany(partial(_plain, engine), engine.signature, samples, request.subjects, Path(request.output))
    return OutputsAnswer(outputs=given)


def _by_sample(outputs: Mapping[str, Array], ran: int, real: int) -> dict[str, Array]:
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
