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
_ALIKE: Final = 0.25
"""A variance of the requests in a run below which their number tells nothing."""


class _Cost:
    """A smoothed duration. What is far above it counts as four times it: the scheduler gave the core to someone else."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        known = self.seconds
        self.seconds = known + _SMOOTHING * (min(seconds, _OUTLIER * known) - known) if known else seconds


class _MarginalCost:
    """What one request more adds to a run: the slope of the run's duration over the requests in it, smoothed.

    Requests that run together share most of what a run costs, so that taking one of them out saves less than its share.
    While all runs have as many requests as each other, nothing tells the two apart, and the share is what is known.
    """

    __slots__ = ("_covariance", "_requests", "_run", "_variance")

    def __init__(self) -> None:
        self._run = _Cost()
        self._requests = 0.0
        self._variance = 0.0
        self._covariance = 0.0

    def observe(self, requests: int, seconds: float) -> None:
        before = self._run.seconds
        self._run.observe(seconds)
        if not before:
            self._requests = requests
            return
        more = requests - self._requests
        longer = min(seconds, _OUTLIER * before) - before
        self._requests += _SMOOTHING * more
        # West's recurrence for exponentially weighted moments.
        self._variance = (1 - _SMOOTHING) * (self._variance + _SMOOTHING * more * more)
        self._covariance = (1 - _SMOOTHING) * (self._covariance + _SMOOTHING * more * longer)

    @property
    def seconds(self) -> float:
        share = self._run.seconds / max(self._requests, 1.0)
        if self._variance < _ALIKE:
            return share
        return min(max(self._covariance / self._variance, 0.0), share)


class Payoff:
    """Compares, window by window, what hits saved with what looking up and keeping cost.

    Where it did not pay, only a sample is looked up until it does. The sample is one of inputs, not of requests: all
    requests with equal inputs are in it or none is, so that its hit rate is the one that all would have.
    """

    __slots__ = ("_hits", "_lookup", "_lookups", "_run", "_store", "bypassing")

    def __init__(self) -> None:
        self.bypassing = False
        self._lookups = 0
        self._hits = 0
        self._lookup = _Cost()
        self._store = _Cost()
        self._run = _MarginalCost()

    @staticmethod
    def is_sampled(sample: int) -> bool:
        """Whether inputs with this sample are looked up even while the others are not."""
        return (sample >> 8) % SAMPLED_ONE_IN == 0

    def count_lookup(self, *, hit: bool) -> None:
        """A look-up saved a run, or did not."""
        self._lookups += 1
        self._hits += hit
        if self._lookups >= (PROBE_WINDOW if self.bypassing else WINDOW):
            self._decide()

    def observe_lookup(self, seconds: float) -> None:
        """A look-up took so long. Not every one need be timed."""
        self._lookup.observe(seconds)

    def observe_keep(self, seconds: float) -> None:
        """Keeping an answer took so long. Not every one need be timed."""
        self._store.observe(seconds)

    def observe_run(self, requests: int, seconds: float) -> None:
        """The engine ran for so long, for so many requests."""
        self._run.observe(requests, seconds)

    def _decide(self) -> None:
        saved = self._hits * self._run.seconds
        spent = self._lookups * self._lookup.seconds + (self._lookups - self._hits) * self._store.seconds
        self.bypassing = saved < spent * _RESUME_MARGIN if self.bypassing else saved < spent
        self._lookups = self._hits = 0
