"""The judge: a candidate by all judgements of a session, and whether they can tell a ruined one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from penstock.errors import Invalid
from penstock.optimization.measurements import AccuracyControl, AccuracyResult, Judgement, MetricName
from penstock_optimizer.accuracy.likeness import plain
from penstock_optimizer.metrics.choice import fallback
from penstock_optimizer.metrics.classes import is_scores
from penstock_optimizer.metrics.comparing import compare, differs_by_rounding
from penstock_optimizer.metrics.figures import METRIC_UNSUITED, Comparison, Outputs, Scored, compare_figures
from penstock_optimizer.search.constraints import allowed_loss, ruin_shows
from penstock_runtime.engines import Array

if TYPE_CHECKING:
    from penstock.api.optimization import AccuracyConstraint

_CLEARLY: Final = 5.0
"""Times what is allowed: so much must a ruined output lose by a cosine that nobody asked for."""
_MOST_CONTROLLED: Final = 512
"""Samples for the controls: what is ruined shows on few."""

Imported = Callable[[Outputs, Outputs, Array | None], Scored]
"""An import path's figures for two models' outputs, and the labels."""


@dataclass(frozen=True)
class Judge:
    """Judges candidates on the same samples."""

    constraint: AccuracyConstraint
    labels: Array | None
    imported: Imported | None = None
    """For an import path."""

    def judge(
        self, chosen: Sequence[Judgement], baseline: Outputs, candidate: Outputs, split: str = "test"
    ) -> AccuracyResult:
        """The candidate by all judgements; the worst by the constraint goes first.

        Args:
            chosen: at least one.
            baseline: its outputs.
            candidate: its outputs, of the same names and shapes.
            split: where the samples are from.
        """
        found = [self._result(each, baseline, candidate, split) for each in chosen]
        worst = min(found, key=self._room)
        return worst.model_copy(update={"others": tuple(each for each in found if each is not worst)})

    def _room(self, result: AccuracyResult) -> tuple[bool, float]:
        allowed = allowed_loss(self.constraint, result.metric, result.baseline)
        loss = max(result.loss, result.loss_bound) if self.constraint.certify else result.loss
        return result.fault is None, allowed - loss

    def _result(self, judgement: Judgement, baseline: Outputs, candidate: Outputs, split: str) -> AccuracyResult:
        confidence = float(self.constraint.confidence)
        found = self._compare(judgement, baseline, candidate, confidence)
        return AccuracyResult(
            metric=judgement.metric,
            output=judgement.output,
            samples=len(next(iter(baseline.values()))),
            baseline=found.baseline,
            candidate=found.candidate,
            loss=found.loss,
            loss_bound=found.loss_bound,
            confidence=confidence,
            baseline_right_candidate_wrong=found.lost,
            candidate_right_baseline_wrong=found.won,
            split=split,
            fault=found.fault,
        )

    def _compare(self, judgement: Judgement, baseline: Outputs, candidate: Outputs, confidence: float) -> Comparison:
        if judgement.metric is not MetricName.IMPORT_PATH:
            top_k = self.constraint.top_k
            return compare(judgement, (baseline, candidate), self.labels, top_k=top_k, confidence=confidence)
        if self.imported is None:
            raise Invalid(METRIC_UNSUITED, "the metric ImportPath needs constraints.accuracy.importPath")
        found = compare_figures(self.imported(baseline, candidate, self.labels), confidence)
        if all(differs_by_rounding(baseline[name], candidate[name]) for name in baseline):
            found = replace(found, loss_bound=max(found.loss, 0.0))
        return found

    def controls(self, chosen: Sequence[Judgement], baseline: Outputs) -> tuple[AccuracyControl, ...]:
        """Candidates that are known to be ruined, judged: all outputs at once, and each alone where there are several.

        Args:
            chosen: the judgements of the session.
            baseline: its outputs, of which the first samples are taken.
        """
        first = {name: np.asarray(array[:_MOST_CONTROLLED]) for name, array in baseline.items()}
        labels = None if self.labels is None else self.labels[:_MOST_CONTROLLED]
        judge = replace(self, labels=labels)
        alone = [(name,) for name in first] if len(first) > 1 and self.imported is None else []
        return tuple(
            judge._control(chosen, first, names, what)  # noqa: SLF001 -- of the same class
            for names in (tuple(first), *alone)
            for what in _RUINS
        )

    def _control(
        self, chosen: Sequence[Judgement], baseline: Outputs, names: tuple[str, ...], what: str
    ) -> AccuracyControl:
        ruined = {**baseline, **{name: _RUINS[what](baseline[name]) for name in names}}
        result = self.judge(chosen, baseline, ruined)
        every = len(names) == len(baseline)
        return AccuracyControl(
            name=what,
            output="" if every else names[0],
            metric=result.metric,
            loss=result.loss,
            told=ruin_shows(self.constraint, result),
        )

    def fit_judgements(
        self, chosen: Sequence[Judgement], baseline: Outputs
    ) -> tuple[tuple[Judgement, ...], tuple[AccuracyControl, ...]]:
        """The judgements that are used in a session, and their controls.

        Where a metric that nobody asked for lets a ruined output pass, what can tell takes its place.
        """
        found = self.controls(chosen, baseline)
        allowed = allowed_loss(self.constraint, MetricName.COSINE, 1.0)
        # Where all answers point much the same way, a cosine that is hardly allowed has lost most of what tells them apart.
        blunt = {e.output for e in found if e.metric == MetricName.COSINE and e.loss < _CLEARLY * max(allowed, 0.0)}
        missed = {each.output for each in found if not each.told} | blunt
        if not missed or self.constraint.metric is not None or self.imported is not None:
            return tuple(chosen), found
        others = tuple(_replace(chosen, baseline, missed - {""} or set(baseline)))
        return (others, found) if others == tuple(chosen) else (others, self.controls(others, baseline))


def permute(array: Array) -> Array:
    """Each sample with another's answer."""
    order = np.random.default_rng(0).permutation(len(array))
    moved = np.empty_like(array)
    moved[order] = array[np.roll(order, 1)]
    return moved


def make_constant(array: Array) -> Array:
    """Every sample with the same answer: the mean, or the commonest; for scores, the mean of the commonest class."""
    if array.dtype.kind != "f":
        values, counts = np.unique(plain(array).reshape(len(array), -1), axis=0, return_counts=True)
        common: Array = values[counts.argmax()].reshape((1, *array.shape[1:]))
        return np.repeat(common, len(array), axis=0)
    rows = array
    if is_scores(array):
        classes = array.argmax(axis=1)
        rows = array[classes == np.bincount(classes).argmax()]
    mean: Array = rows.mean(axis=0, dtype=np.float64).astype(array.dtype)
    return np.repeat(mean[None], len(array), axis=0)


_RUINS: Final = {"permuted answers": permute, "constant answers": make_constant}


def _replace(chosen: Sequence[Judgement], baseline: Outputs, names: set[str]) -> Iterator[Judgement]:
    for name in dict.fromkeys(each.output for each in chosen):
        own = [each for each in chosen if each.output == name]
        other = fallback(own[0], baseline[name]) if name in names else None
        known = other is not None and any(each.metric is other.metric and not each.labelled for each in own)
        if other is None or known:
            yield from own
        else:
            yield other
