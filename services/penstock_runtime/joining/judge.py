"""Whether a request's part of a joint answer is its own lone answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from penstock.optimization.recipes import Precision
from penstock.serving.manifest import DataType, TensorSpec
from penstock.serving.rows import part_rows
from penstock_runtime.engines import Array, Engine
from penstock_runtime.joining.inputs import nudge

Outputs = Mapping[str, Array]

ROUNDING: Final = {DataType.FP64: 1e-8, DataType.FP32: 1e-4, DataType.FP16: 5e-3, DataType.BF16: 4e-2}
"""Of the largest value of an answer: what another order of a sum can change after many layers."""
_LOWER: Final = {Precision.FP32: 0.0, Precision.FP16: 5e-3, Precision.BF16: 4e-2}
_NOISES: Final = 4.0


def floats(array: Array, spec: TensorSpec) -> Array:
    """Values to compare: BF16's bits as floats, floats as fp64, all else as it is."""
    if spec.datatype is DataType.BF16:
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


class AnswerComparer:
    """Compares answers of one model.

    Args:
        specs: its outputs.
        precision: in which the engine computes.
    """

    def __init__(self, specs: tuple[TensorSpec, ...], precision: Precision) -> None:
        self._specs = specs
        self._relative = {spec.name: max(ROUNDING.get(spec.datatype, 0.0), _LOWER[precision]) for spec in specs}
        self._noise: dict[str, float] = {}
        self._telling: set[str] = set()

    def learn(self, answer: Outputs, nudged: Outputs) -> None:
        """Learn how exact the engine is from two answers to requests that differ by a few last digits."""
        for spec in self._specs:
            ours, theirs = floats(answer[spec.name], spec), floats(nudged[spec.name], spec)
            if ours.shape == theirs.shape and ours.dtype.kind == "f" and ours.size:
                gap = np.abs(ours - theirs)
                moved = float(np.max(gap[np.isfinite(gap)], initial=0.0))
                self._noise[spec.name] = max(self._noise.get(spec.name, 0.0), moved)

    def axes(self, lone: Outputs, rows: int, joint: Outputs, total: int) -> dict[str, int] | str:
        """On which axis each output counts rows: the one that alone grows with them. Else why there is none."""
        found: dict[str, int] = {}
        for spec in self._specs:
            ours, theirs = lone[spec.name].shape, joint[spec.name].shape
            grown = [
                axis for axis, (one, all_) in enumerate(zip(ours, theirs, strict=False)) if one != all_
            ]  # fmt: skip
            if len(ours) != len(theirs) or len(grown) != 1 or (ours[grown[0]], theirs[grown[0]]) != (rows, total):
                return (
                    f"output '{spec.name}' has shape {list(ours)} for {_rows(rows)} and {list(theirs)} for "
                    f"{_rows(total)}: no axis counts them"
                )
            found[spec.name] = grown[0]
        return found

    def are_all_alike(self, answers: Sequence[Outputs], axes: Mapping[str, int]) -> bool:
        """Whether the first rows of all answers are the same: then nothing shows whose they are."""
        first, *others = (
            [floats(part_rows(each[spec.name], axes[spec.name], 0, 1), spec) for spec in self._specs]
            for each in answers
        )
        return all(_are_equal(ours, theirs) for other in others for ours, theirs in zip(first, other, strict=True))

    def compare_part(self, lone: Outputs, joint: Outputs, axes: Mapping[str, int], start: int, rows: int) -> str | None:
        """What differs between a lone answer and its part of a joint one; None where they are the same."""
        for spec in self._specs:
            name = spec.name
            whole, axis = joint[name], axes[name]
            if whole.ndim <= axis or whole.shape[axis] < start + rows:
                return f"output '{name}' of shape {list(whole.shape)} has too few rows"
            mine = part_rows(whole, axis, start, start + rows)
            if mine.shape != lone[name].shape:
                return f"output '{name}' has shape {list(mine.shape)} instead of {list(lone[name].shape)}"
            problem = self._difference(floats(lone[name], spec), floats(mine, spec), name)
            if problem is not None:
                return problem
        return None

    def compare(self, first: Outputs, second: Outputs) -> str | None:
        """What differs between two answers to one request; None where they are the same."""
        for spec in self._specs:
            ours, theirs = floats(first[spec.name], spec), floats(second[spec.name], spec)
            if ours.shape != theirs.shape:
                return f"output '{spec.name}' has shape {list(theirs.shape)} instead of {list(ours.shape)}"
            problem = self._difference(ours, theirs, spec.name)
            if problem is not None:
                return problem
        return None

    def compare_with_lone_run(self, engine: Engine, inputs: Mapping[str, Array], mine: Outputs) -> str | None:
        """What differs between a request's part of a joint answer and a lone run of it; None where nothing does.

        A real request may lie on an edge, where the last digit of a sum decides: it tells nothing where it answers otherwise to
        inputs that differ by a few last digits.
        """
        lone = engine.run(inputs)
        problem = self.compare(lone, mine)
        if problem is None:
            return None
        moved = nudge(inputs, engine.signature)
        if moved is not None and self.compare(lone, engine.run(moved)) is not None:
            return None
        return problem

    @property
    def untold(self) -> tuple[str, ...]:
        """Outputs that were never compared by a single number: each was empty, or NaN throughout."""
        return tuple(spec.name for spec in self._specs if spec.name not in self._telling)

    def _difference(self, lone: Array, mine: Array, name: str) -> str | None:
        if lone.dtype.kind != "f":
            if lone.size:
                self._telling.add(name)
            wrong = int(np.count_nonzero(lone != mine))
            return f"{wrong} of {lone.size} values of output '{name}' are others" if wrong else None
        finite = np.isfinite(lone)
        if finite.any():
            self._telling.add(name)
        if not np.array_equal(finite, np.isfinite(mine)) or not np.array_equal(
            lone[~finite], mine[~finite], equal_nan=True
        ):
            return f"output '{name}' has NaN or infinity where it has none, or the other way"
        scale = float(np.max(np.abs(lone[finite]), initial=0.0))
        allowed = self._relative[name] * scale + _NOISES * self._noise.get(name, 0.0)
        gap = float(np.max(np.abs(lone[finite] - mine[finite]), initial=0.0))
        return f"output '{name}' is off by {gap:.3g}, {allowed:.1g} would be rounding" if gap > allowed else None


def _are_equal(ours: Array, theirs: Array) -> bool:
    return np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
