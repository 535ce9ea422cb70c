"""Whether an answer depends on who else is in its batch: some samples alone, and beside very different ones.

A replica joins the requests of strangers. What takes one scale for a whole run, as dynamic quantization does, then gives a caller
another answer because of another's input. The child that computes outputs (`penstock_optimizer.accuracy.outputs`) runs the subjects and
leaves what they answered; the parent judges it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from penstock.optimization.measurements import Company, Judgement
from penstock.serving.manifest import Signature
from penstock_optimizer.accuracy.likeness import plain
from penstock_optimizer.metrics import Judge, Outputs, differs_by_rounding
from penstock_optimizer.metrics.figures import CHUNK, flat, scale_of
from penstock_optimizer.samples.arrays import LABELS, Samples, run_of, sample_axes
from penstock_optimizer.search.constraints import result_in_words, ruin_shows
from penstock_runtime.engines import Array

logger = logging.getLogger(__name__)

GREATEST_CHANGE: Final = 0.01
"""Of an answer's own range. More is another answer."""
_ROWS: Final = 8
"""Of a run in company: one subject and seven others."""
_ALONE: Final = "alone"
_COPIES: Final = "copies of itself"
_ROUNDING_TIMES: Final = 2.0
_MOST_ROUNDING: Final = 0.03
"""What kernels of bf16 and the like, which are chosen by the number of rows, may change by rounding: twice as much as copies of
the sample itself beside it change, and no more than this."""
_OTHERS: Final = "very different samples"
_FACTORS: Final = {"samples a thousand times as large": 1000.0, "samples of the other sign": -1.0, "zeros": 0.0}
_DEVIATIONS: Final = 4.0
"""The range of answers that are one number each, in standard deviations."""
_TINY: Final = 1e-12
_MOST_CHANGE: Final = 100.0
"""More than that need not be told apart."""

Run = Callable[[dict[str, Array]], dict[str, Array]]


def is_joinable(signature: Signature) -> bool:
    """Whether a run can have several samples at all, on whichever axes they are counted."""
    axes = sample_axes(signature)
    return all((axis := axes[spec.name]) is not None and spec.shape[axis] < 0 for spec in signature.inputs)


def accompany(run: Run, signature: Signature, samples: Samples, subjects: int, folder: Path) -> None:
    """In the child: run the first samples alone and in company, and write their answers.

    Args:
        run: the engine's.
        signature: whose first axes count samples.
        samples: at least one.
        subjects: how many are looked at, at most.
        folder: where each company gets a file.
    """
    inputs = {name: array for name, array in samples.items() if name != LABELS}
    runs = _Runs(run, signature, inputs)
    chosen = range(min(subjects, len(next(iter(inputs.values())))))
    _write([runs.answer_alone(index) for index in chosen], folder, _ALONE)
    for name, mates in _companies(inputs):
        try:
            # First in one batch, last in the next: where it stands must not matter either.
            beside = [runs.answer_beside(index, mates(index), first=index % 2 == 0) for index in chosen]
        except Exception as error:  # noqa: BLE001 -- made-up inputs may be none that the model takes: that tells nothing
            logger.warning("no company of %s: %s", name, error)
            continue
        _write(beside, folder, name)


@dataclass(frozen=True)
class _Runs:
    """Runs of one sample."""

    run: Run
    signature: Signature
    inputs: Mapping[str, Array]

    def answer_alone(self, index: int) -> dict[str, Array]:
        """Its answer."""
        rows = {name: array[index : index + 1] for name, array in self.inputs.items()}
        return {name: _with_sample_axis(array) for name, array in self._outputs(rows, 1).items()}

    def answer_beside(self, index: int, mates: Mapping[str, Array], *, first: bool) -> dict[str, Array]:
        """Its answer in a run with others."""
        parts = {name: [array[index : index + 1], mates[name]] for name, array in self.inputs.items()}
        rows = {name: np.concatenate(each if first else each[::-1]) for name, each in parts.items()}
        own = self._outputs({name: each[0] for name, each in parts.items()}, 1)
        given = self._outputs(rows, _ROWS)
        place = 0 if first else _ROWS - 1
        return {name: _with_sample_axis(_share(array, own[name].shape, place, name)) for name, array in given.items()}

    def _outputs(self, rows: Mapping[str, Array], count: int) -> dict[str, Array]:
        given = self.run(run_of(rows, self.signature, np.arange(count)))
        return {name: plain(np.asarray(array)) for name, array in given.items()}


def _share(array: Array, alone: tuple[int, ...], place: int, name: str) -> Array:
    """One sample's share of an output, on the axis where a run of several has as many times the length.

    Raises:
        ValueError: there is no such axis: the output does not count samples.
    """
    for axis, length in enumerate(alone):
        if array.shape == (*alone[:axis], length * _ROWS, *alone[axis + 1 :]):
            return np.take(array, range(place * length, (place + 1) * length), axis=axis)
    raise ValueError(f"output '{name}' of shape {array.shape} does not count {_ROWS} samples")


def _with_sample_axis(answer: Array) -> Array:
    """An answer with a first axis of one sample."""
    return answer if answer.shape[:1] == (1,) else answer[None]


def _companies(inputs: Mapping[str, Array]) -> Iterator[tuple[str, Callable[[int], dict[str, Array]]]]:
    """Who stands beside a sample: by name, and by the sample's index."""
    order = np.argsort(_sizes(inputs), kind="stable")

    def others(index: int) -> dict[str, Array]:
        # The largest, the smallest, and what lies between.
        rest = order[order != index] if len(order) > 1 else order
        picked = [*rest[::-1][:3], *rest[:2], *rest[len(rest) // 2 :][:2]]
        take = np.resize(np.asarray(picked), _ROWS - 1)
        return {name: array[take] for name, array in inputs.items()}

    def copies(index: int) -> dict[str, Array]:
        return {name: np.repeat(array[index : index + 1], _ROWS - 1, axis=0) for name, array in inputs.items()}

    def scale_others(factor: float, index: int) -> dict[str, Array]:
        return _scale(others(index), factor)

    yield _COPIES, copies
    yield _OTHERS, others
    if any(array.dtype.kind == "f" for array in inputs.values()):
        for name, factor in _FACTORS.items():
            yield name, partial(scale_others, factor)


def _sizes(inputs: Mapping[str, Array]) -> npt.NDArray[np.float64]:
    """How large each sample is, as a sum over its inputs of numbers."""
    count = len(next(iter(inputs.values())))
    found = np.zeros(count, dtype=np.float64)
    for array in inputs.values():
        if array.dtype.kind in "fiub":
            for start in range(0, count, CHUNK):
                found[start : start + CHUNK] += np.abs(flat(array[start : start + CHUNK])).sum(axis=1)
    return found


def _scale(samples: dict[str, Array], factor: float) -> dict[str, Array]:
    """Numbers with a fraction times a factor, as far as their type holds them; ids, flags and strings are left alone."""
    scaled = {}
    for name, array in samples.items():
        if array.dtype.kind == "f":
            most = float(np.finfo(array.dtype).max)
            array = np.clip(array.astype(np.float64) * factor, -most, most).astype(array.dtype)  # noqa: PLW2901
        scaled[name] = array
    return scaled


def _write(answers: Sequence[Mapping[str, Array]], folder: Path, name: str) -> None:
    stacked = {f"{index}": np.concatenate([each[key] for each in answers]) for index, key in enumerate(answers[0])}
    np.savez(_file(folder, name), **stacked)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for an array


def _file(folder: Path, name: str) -> Path:
    return folder / f"company-{name.replace(' ', '-')}.npz"


def assess_company(
    folder: Path, names: Sequence[str], answers: Outputs, chosen: Sequence[Judgement], judge: Judge
) -> Company | None:
    """In the parent: what company does to the answers of a variant; None where it was not tried.

    Args:
        folder: where `accompany` wrote.
        names: of the outputs, in the order that they were written.
        answers: the variant's own to all samples, which tell the range of single numbers.
        chosen: the judgements of the session.
        judge: with the labels of the same samples.
    """
    if not _file(folder, _ALONE).is_file():
        return None
    alone = _read(folder, _ALONE, names)
    count = len(next(iter(alone.values())))
    judge = replace(judge, labels=None if judge.labels is None else judge.labels[:count])
    kinds = [kind for kind in (_COPIES, _OTHERS, *_FACTORS) if _file(folder, kind).is_file()]
    look = _Look(alone, answers, chosen, judge)
    if _COPIES in kinds:
        rounding = _ROUNDING_TIMES * max(look.changes(_read(folder, _COPIES, names)).values())
        look = replace(look, most=max(GREATEST_CHANGE, min(rounding, _MOST_ROUNDING)))
    found = [look.assess(kind, _read(folder, kind, names)) for kind in kinds]
    return max(found, key=lambda each: (each.problem is not None, each.change)) if found else None


def _read(folder: Path, name: str, names: Sequence[str]) -> dict[str, Array]:
    with np.load(_file(folder, name), allow_pickle=False) as archive:
        return {key: archive[f"{index}"] for index, key in enumerate(names)}


@dataclass(frozen=True)
class _Look:
    """What the subjects answered alone, and what counts as another answer."""

    alone: Outputs
    answers: Outputs
    chosen: Sequence[Judgement]
    judge: Judge
    most: float = GREATEST_CHANGE

    def changes(self, beside: Outputs) -> dict[str, float]:
        """By output."""
        return {name: _change(self.alone[name], beside[name], self.answers[name]) for name in self.alone}

    def assess(self, kind: str, beside: Outputs) -> Company:
        """What one company changed."""
        changes = self.changes(beside)
        worst = max(changes, key=lambda name: changes[name])
        change = min(changes[worst], _MOST_CHANGE)
        problem = None
        if change > self.most:
            problem = f"beside {kind} its answers change by up to {change:.2%} of their range ('{worst}')"
        elif self.judge.imported is None and not all(
            differs_by_rounding(self.alone[name], beside[name]) for name in beside
        ):
            result = self.judge.judge(self.chosen, self.alone, beside, f"company of {kind}")
            if ruin_shows(self.judge.constraint, result):
                problem = f"beside {kind} its answers are others: {result.fault or result_in_words(result)}"
        count = len(next(iter(self.alone.values())))
        return Company(subjects=count, rows=_ROWS, beside=kind, change=change, problem=problem)


def _change(alone: Array, beside: Array, answers: Array) -> float:
    """The greatest change of an answer, as a share of its range; 1 where something else than a number changed."""
    if alone.dtype.kind != "f":
        return float((plain(alone) != plain(beside)).any())
    if not alone.size:
        return 0.0
    one, other = flat(alone), flat(beside)
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(other)):
        return 1.0
    one, other = np.where(finite, one, 0.0), np.where(finite, other, 0.0)
    if one.shape[1] == 1:
        span = np.broadcast_to(_DEVIATIONS * scale_of(answers).max(), (len(one), 1))
    else:
        span = np.ptp(one, axis=1, keepdims=True)
    return float((np.abs(one - other) / np.maximum(span, _TINY)).max(initial=0.0))
