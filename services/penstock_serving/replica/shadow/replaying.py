"""Inputs for when clients send too few: those of samples before, and made ones."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping
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
    supplied: bool = False
    """Of what none ever sent: whether it was named rather than made."""
    again: bool = False
    """Of what was supplied: whether it was shown before."""
    compared: bool = True
    """Of what was made: whether answers to it count, since too little was supplied."""


class ReplayedInputs:
    """Gives samples that were supplied, each once, and then made inputs, which are others each time.

    Where samples are enough to tell of others like them, answers to them alone count, and one of them, by chance, comes in every second turn
    again. In every second turn it gives one of those that clients sent, where there are any.

    Args:
        maker: makes requests to the model.
        chance: draws samples.
    """

    def __init__(self, maker: RequestMaker, chance: random.Random) -> None:
        self._maker = maker
        self._chance = chance
        self._recorded: deque[tuple[Inputs, int]] = deque(maxlen=MOST_RECORDED)
        self._fresh: deque[Inputs] = deque()
        self._enough: tuple[Inputs, ...] = ()
        """All samples, where they are enough."""
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

    def supply(self, samples: Iterable[Inputs], *, enough: bool) -> None:
        """Show these, too, and none of those before; `enough`: whether they, and what others show of them, tell of others like them."""
        self._fresh = deque(samples)
        self._enough = tuple(self._fresh) if enough else ()

    def next_inputs(self) -> ReplayedInput | None:
        """The next ones to be shown; None: there are none that the model takes."""
        self._turn += 1
        self._was_made = False
        if self._recorded and self._turn % 2 == 0:
            return self._next_recorded()
        supplied = self._next_supplied()
        if supplied is not None:
            return supplied
        if not self._maker.exhausted:
            self._was_made = True
            return ReplayedInput(self._maker.make(), made=True, compared=not self._enough)
        return self._next_recorded() if self._recorded else None

    def _next_recorded(self) -> ReplayedInput:
        """In turn, the oldest first."""
        self._recorded.rotate(-1)
        return ReplayedInput(self._recorded[-1][0], made=False)

    def _next_supplied(self) -> ReplayedInput | None:
        if self._fresh:
            return ReplayedInput(self._fresh.popleft(), made=True, supplied=True)
        if self._enough and (self._maker.exhausted or self._chance.getrandbits(1)):
            return ReplayedInput(self._chance.choice(self._enough), made=True, supplied=True, again=True)
        return None

    def observe(self, *, took: bool) -> None:
        """Whether the model took the last ones."""
        if self._was_made:
            self._maker.observe(took=took)


def size_of(arrays: Mapping[str, Array]) -> int:
    """Bytes of all arrays, as far as texts can be told."""
    return sum(
        array.nbytes + (sum(map(len, array.ravel())) if array.dtype.kind == "O" else 0) for array in arrays.values()
    )
