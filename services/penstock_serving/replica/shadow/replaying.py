"""Inputs for when no client sends any: those of samples before, and made ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

from penstock.protocol.datatypes import Array
from penstock_runtime.joining.making import RequestMaker

MOST_RECORDED: Final = 32
MOST_RECORDED_BYTES: Final = 16 * 1024 * 1024

Inputs = Mapping[str, Array]


class ReplayedInputs:
    """Gives inputs in turn: each that was recorded, and made ones in the places that are empty.

    Args:
        maker: makes requests to the model.
    """

    def __init__(self, maker: RequestMaker) -> None:
        self._maker = maker
        self._recorded: deque[tuple[Inputs, int]] = deque(maxlen=MOST_RECORDED)
        self._turn = -1
        self._was_made = False

    def record(self, inputs: Inputs) -> None:
        """Keep what a client has sent. The oldest go where there are too many, or too large ones."""
        size = size_of(inputs)
        if size > MOST_RECORDED_BYTES:
            return
        self._recorded.append((inputs, size))
        while sum(each for _, each in self._recorded) > MOST_RECORDED_BYTES:
            self._recorded.popleft()

    def next_inputs(self) -> Inputs | None:
        """The next ones to be shown; None: there are none that the model takes."""
        self._turn = (self._turn + 1) % MOST_RECORDED
        recorded = self._recorded
        self._was_made = self._turn >= len(recorded) and not self._maker.exhausted
        if self._was_made:
            return self._maker.make()
        return recorded[self._turn % len(recorded)][0] if recorded else None

    def observe(self, *, took: bool) -> None:
        """Whether the model took the last ones."""
        if self._was_made:
            self._maker.observe(took=took)


def size_of(arrays: Mapping[str, Array]) -> int:
    """Bytes of all arrays, as far as texts can be told."""
    return sum(
        array.nbytes + (sum(map(len, array.ravel())) if array.dtype.kind == "O" else 0) for array in arrays.values()
    )
