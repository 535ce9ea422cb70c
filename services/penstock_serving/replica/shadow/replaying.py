"""Inputs for when clients send too few: those of samples before, and made ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from penstock.protocol.datatypes import Array
from penstock_runtime.joining.making import RequestMaker

MOST_RECORDED: Final = 64
MOST_RECORDED_BYTES: Final = 16 * 1024 * 1024

Inputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class ReplayedInput:
    """Inputs that no client sends now."""

    inputs: Inputs
    made: bool
    """Whether none ever did; else they were shown before."""


class ReplayedInputs:
    """Gives made inputs, which are others each time, and in every second turn one of those that clients sent, where there are any.

    Args:
        maker: makes requests to the model.
    """

    def __init__(self, maker: RequestMaker) -> None:
        self._maker = maker
        self._recorded: deque[tuple[Inputs, int]] = deque(maxlen=MOST_RECORDED)
        self._turn = 0
        self._was_made = False

    def record(self, inputs: Inputs) -> None:
        """Keep what a client has sent. The oldest go where there are too many, or too large ones."""
        size = size_of(inputs)
        if size > MOST_RECORDED_BYTES:
            return
        self._recorded.append((inputs, size))
        while sum(each for _, each in self._recorded) > MOST_RECORDED_BYTES:
            self._recorded.popleft()

    def next_inputs(self) -> ReplayedInput | None:
        """The next ones to be shown; None: there are none that the model takes."""
        self._turn += 1
        recorded = self._recorded
        again = bool(recorded) and (self._turn % 2 == 0 or self._maker.exhausted)
        self._was_made = not again and not self._maker.exhausted
        if self._was_made:
            return ReplayedInput(self._maker.make(), made=True)
        if not again:
            return None
        # In turn, the oldest first.
        recorded.rotate(-1)
        return ReplayedInput(recorded[-1][0], made=False)

    def observe(self, *, took: bool) -> None:
        """Whether the model took the last ones."""
        if self._was_made:
            self._maker.observe(took=took)


def size_of(arrays: Mapping[str, Array]) -> int:
    """Bytes of all arrays, as far as texts can be told."""
    return sum(
        array.nbytes + (sum(map(len, array.ravel())) if array.dtype.kind == "O" else 0) for array in arrays.values()
    )
