"""Whether a request can be answered in time behind what is there already: a pure function of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock_runtime.batching.curve import ServiceCurve

DEFAULT_SECONDS: Final = 30.0
"""Within which an answer is due where neither the deployment's objective nor the request says a time."""
_GAIN: Final = 1 / 8
_DEVIATION_GAIN: Final = 1 / 4
_DEVIATIONS: Final = 2.0
_LEAST_RATIO, _LARGEST_RATIO = 0.1, 10.0
_LARGEST_MARGIN: Final = 2.0
"""The curve follows what runs take; what is above this was a stall, which says nothing of the next."""
_WHATEVER: Final = 1 << 62


class Admission:
    """Predicts when a request would be answered, and says whether that is in time.

    With `a` rows ahead and `r` of its own, `k` engines of which the `i`th to become free (from 0) is so after `e(i)` seconds, and
    runs of `B` rows that take `T(B)` by the service curve, the answer comes with the `n`th run from now, `n = ⌈(a + r) / B⌉`, after

        w = e(0) + T(a + r)                                   where these fit into one run
        w = e((n - 1) mod k) + (⌊(n - 1) / k⌋ + 1)·T(B)       else: what comes later fills the last one up

    seconds: with one engine, `e + n·T(B)`. What is held against the time that is left is `w·(c + 2·d)`: `c` and `d` are the smoothed
    mean and mean deviation of what answers took over what was expected, with the gains 1/8 and 1/4 by which RFC 6298 (section 2)
    smooths round trips. So an estimate that is always too low by a factor corrects itself, and one that varies leaves room.

    Args:
        curve: seconds of a run by rows, as they are with all engines at work.
        engines: that run at once.
    """

    def __init__(self, curve: ServiceCurve, engines: int = 1) -> None:
        self._curve = curve
        self._engines = engines
        self._objective: float | None = None
        self._ratio = 1.0
        self._deviation = 0.0
        self._runs = 1
        self.size = 1
        """Rows of a run, as they are chosen now."""
        self._full = 0.0
        self.allowance = DEFAULT_SECONDS
        """Seconds within which an answer is due that says nothing itself. At least as long as `follow` was told that runs take which
        always go before: an objective that no batch can keep would else leave the engine idle."""
        self.room = _WHATEVER
        """Rows of which it is sure that they may wait behind a run that has just begun; others need `refuse`."""

    @property
    def margin(self) -> float:
        """What an expectation is multiplied with before a time is held against it."""
        return min(self._ratio + _DEVIATIONS * self._deviation, _LARGEST_MARGIN)

    @property
    def objective(self) -> float | None:
        """Seconds within which the deployment is to answer; None: it says nothing."""
        return self._objective

    @property
    def run_seconds(self) -> float:
        """Of a run of `size` rows."""
        return self._full

    def set_objective(self, seconds: float | None) -> None:
        """Take another objective; None: `DEFAULT_SECONDS`."""
        self._objective = seconds
        self.follow(self.size)

    def follow(self, size: int, runs: int | None = None) -> None:
        """Take over what the curve says now.

        Args:
            size: rows of a run.
            runs: so many full batches may wait whatever the objective; None: as many as before.
        """
        self.size = size
        if runs is not None:
            self._runs = runs
        self._full = full = self._curve.seconds(size)
        wanted = DEFAULT_SECONDS if self._objective is None else self._objective
        margin = self.margin
        self.allowance = max(wanted, (self._runs + 1) * full * margin * 1.001)
        self.room = int(self.allowance / (full * margin) - 1) * size * self._engines if full else _WHATEVER

    def expect(self, ahead: int, rows: int, remaining: Sequence[float]) -> float:
        """Seconds until a request is answered.

        Args:
            ahead: rows that go before it.
            rows: its own.
            remaining: seconds until each engine is free, the soonest first.
        """
        total = ahead + rows
        if total <= self.size:
            return remaining[0] + self._curve.seconds(total)
        turns, engine = divmod(-(-total // self.size) - 1, self._engines)
        return remaining[engine] + (turns + 1) * self._full

    def refuse(self, expected: float, seconds: float) -> float | None:
        """How much too late an answer would be, in seconds; None where it would be in time.

        Args:
            expected: as `expect` says.
            seconds: that are left.
        """
        late = expected * self.margin - seconds
        return late if late > 0 else None

    def learn(self, expected: float, actual: float) -> None:
        """An answer that was expected after so many seconds has come after so many."""
        if expected <= 0:
            return
        ratio = min(max(actual / expected, _LEAST_RATIO), _LARGEST_RATIO)
        self._deviation += _DEVIATION_GAIN * (abs(ratio - self._ratio) - self._deviation)
        self._ratio += _GAIN * (ratio - self._ratio)
        self.follow(self.size)
