"""The paired accuracy test: both variants' outputs on the same samples, and what the candidate loses."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from penstock.api.optimization import AccuracyConstraint
from penstock.errors import Invalid
from penstock.optimization.measurements import AccuracyControl, AccuracyResult, Judgement, MetricName
from penstock.optimization.variants import DataSplits
from penstock_optimizer.accuracy.company import assess_company
from penstock_optimizer.accuracy.outputs import Asked, match_outputs, outputs_of, split_of
from penstock_optimizer.imported import METRIC_FAILED, MODULE, FiguresRequest, ImportedFigures
from penstock_optimizer.metrics import Judge, Outputs, Scored
from penstock_optimizer.metrics import judgements as choose
from penstock_optimizer.samples.arrays import LABELS, read
from penstock_optimizer.sandbox import run_module
from penstock_runtime.engines import Array

_SUBJECTS: Final = 16
"""Samples of the full test that are also run in company."""
_FEW_SUBJECTS: Final = 4
"""At the gate."""
_METRIC_SECONDS: Final = 300.0
_OUTPUT_SECONDS: Final = 900.0
"""For one variant's outputs."""


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

    Raises:
        Invalid: VariantCannotRun, OutputsDiffer, MetricUnsuited or TooFewSamples, each saying why.
    """
    used, samples = split_of(data, split)
    work.mkdir(parents=True, exist_ok=True)
    asked = Asked(data, used, limit, work, _OUTPUT_SECONDS, sandbox=sandbox, hidden=tuple(hidden))
    ours, _ = outputs_of(baseline, asked)
    subjects = _SUBJECTS if limit is None else _FEW_SUBJECTS
    given, folder = outputs_of(candidate, replace(asked, subjects=subjects))
    base, theirs = match_outputs(ours, given, candidate)
    metric = _Metric(constraint, python_path, work, sandbox, tuple(hidden))
    judge = _judge(metric, samples, limit)
    chosen = judgements or choose(constraint, base, judge.labels, synthetic=data.synthetic)
    names = tuple(given) if set(given) == set(ours) else tuple(ours)
    company = assess_company(folder, names, theirs, chosen, judge)
    if company is not None and company.problem is not None:
        # It is served alone, so it is judged alone.
        base, theirs = match_outputs(ours, outputs_of(candidate, replace(asked, rows=1))[0], candidate)
    result = judge.judge(chosen, base, theirs, used).model_copy(update={"company": company})
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

    Raises:
        Invalid: as `evaluate`.
    """
    used, samples = split_of(data, "validation")
    work.mkdir(parents=True, exist_ok=True)
    ours, _ = outputs_of(
        baseline, Asked(data, used, limit, work, _OUTPUT_SECONDS, sandbox=sandbox, hidden=tuple(hidden))
    )
    ours, _ = match_outputs(ours, ours, baseline)
    judge = _judge(_Metric(constraint, python_path, work, sandbox, tuple(hidden)), samples, limit)
    return judge.fit_judgements(choose(constraint, ours, judge.labels, synthetic=data.synthetic), ours)


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
        return _run_imported_metric(self.constraint.import_path, self, (baseline, candidate), labels)


def _judge(metric: _Metric, samples: Path, limit: int | None) -> Judge:
    constraint = metric.constraint
    if constraint.metric is MetricName.IMPORT_PATH and constraint.import_path is None:
        raise Invalid(METRIC_FAILED, "the metric ImportPath needs constraints.accuracy.importPath")
    labels = read(samples).get(LABELS)
    labels = labels if labels is None or limit is None else labels[:limit]
    return Judge(constraint, labels, metric.figures if constraint.import_path is not None else None)


def _run_imported_metric(
    import_path: str, metric: _Metric, outputs: tuple[Outputs, Outputs], labels: Array | None
) -> Scored:
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
        answer = ImportedFigures.model_validate_json(Path(request.answer).read_bytes())
    if answer.problem is not None:
        raise Invalid(METRIC_FAILED, answer.problem)
    return Scored(np.asarray(answer.baseline), np.asarray(answer.candidate))


def _file_of(array: Array, path: Path) -> str:
    np.save(path, array)
    return str(path)
