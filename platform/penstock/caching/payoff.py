"""Whether looking requests up costs less than it saves."""

from __future__ import annotations

from typing import Final

WINDOW: Final = 512
"""Look-ups after which it is decided anew while every request is looked up."""
PROBE_WINDOW: Final = 128
"""The same while only a sample is."""
SAMPLED_ONE_IN: Final = 32
_RESUME_MARGIN: Final = 1.25
_SMOOTHING: Final = 1 / 16
_OUTLIER: Final = 4.0


class _Cost:
    """A smoothed duration. What is far above it counts as four times it: the scheduler gave the core to someone else."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        known = self.seconds
        self.seconds = known + _SMOOTHING * (min(seconds, _OUTLIER * known) - known) if known else seconds


class Payoff:
    """Compares, window by window, what hits saved with what looking up and keeping cost.

    Where it did not pay, only a sample is looked up until it does. The sample is one of inputs, not of requests: all
    requests with equal inputs are in it or none is, so that its hit rate is the one that all would have.
    """

    def __init__(self) -> None:
        self.bypassing = False
        self._lookups = 0
        self._hits = 0
        self._stores = 0
        self._lookup = _Cost()
        self._store = _Cost()
        self._run = _Cost()

    @staticmethod
    def sampled(sample: int) -> bool:
        """Whether inputs with this sample are looked up even while the others are not."""
        return (sample >> 8) % SAMPLED_ONE_IN == 0

    def looked_up(self, seconds: float, *, hit: bool) -> None:
        """A look-up took so long, and saved a run or did not."""
        self._lookup.observe(seconds)
        self._lookups += 1
        self._hits += hit
        if self._lookups >= (PROBE_WINDOW if self.bypassing else WINDOW):
            self._decide()

    def kept(self, seconds: float) -> None:
        """Keeping an answer took so long."""
        self._store.observe(seconds)
        self._stores += 1

    def ran(self, seconds: float) -> None:
        """The engine spent so long on one request: its share of its batch."""
        self._run.observe(seconds)

    def _decide(self) -> None:
        saved = self._hits * self._run.seconds
        spent = self._lookups * self._lookup.seconds + self._stores * self._store.seconds
        self.bypassing = saved < spent * _RESUME_MARGIN if self.bypassing else saved < spent
        self._lookups = self._hits = self._stores = 0
