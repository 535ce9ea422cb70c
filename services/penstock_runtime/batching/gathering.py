"""Whether a free engine waits a moment for more requests: learnt from what runs took and from what waiting brought."""

from __future__ import annotations

from typing import Final

from penstock_runtime.batching.curve import ServiceCurve

_LEAST_SECONDS: Final = 200e-6
"""What a run must cost whatever its rows for waits to be worth a timer."""
_LEAST_CYCLE: Final = 1e-6
_GAIN: Final = 1 / 16
_TRIAL: Final = 12
"""Runs of a trial."""
_UNCOUNTED: Final = 2
"""Of them the first, which still have the rows that the other way left."""
_IN_VAIN: Final = 2
"""So many waits in a row that bring nothing end a trial."""
_SOONEST, _LATEST = 32, 1024
"""Runs between two trials: they double while nothing changes."""
_PATIENCE: Final = (0, 1, 4)
"""Times what pays by the rule a next one is waited for. The last is for gateways that come in fits and starts."""
_MORE, _LESS = 1.08, 1.03
"""By how much more patience must answer more to be kept, and less patience."""
_HOPELESS: Final = 0.7
"""A trial that answers so much less ends early."""
_FALL: Final = 0.75
_REMEMBERED: Final = 4
"""Waits whose rows are remembered. Each fourth goes on where all of them had ended."""


class Gathering:
    """Chooses how patient to be: to run at once what is there, or to wait for more while that pays.

    A run costs `a` seconds whatever its rows. Where `n` rows wait and have done so for `w` seconds, one more in `g` seconds raises the
    rows per second if `g < (a + w) / n`; so that, or four times as much, is how long each next one is waited for. Whether it comes is
    up to clients, to the gateway, and to who gets the processor: clients that wait for their answers return together, and a gateway
    that shares the replica's core may get it only while no run has it, so that a replica that runs whatever has come is sent one at a
    time. No formula knows. So another patience is tried now and then, for some runs, and the one that answers more rows a
    second is kept. Time in which nothing waits and nothing runs counts up to `a` seconds at a time, or a quiet hour would decide.

    Args:
        curve: what runs took.
        most_rows: of a batch.
    """

    def __init__(self, curve: ServiceCurve, most_rows: int) -> None:
        self._curve = curve
        self._most = most_rows
        self.chosen = 0
        """The patience that is kept, by its place in the list; 0: none."""
        self._level = 0
        """The one that is taken now."""
        self._fixed = 0.0
        self._row = 0.0
        """Seconds that each row adds to a run."""
        self._rows = self._cycle = 0.0
        """Smoothed, with the patience that is kept."""
        self._left = 0
        """Runs of the present trial; 0: there is none."""
        self._trial_rows = self._trial_cycle = 0.0
        self._rates: dict[int, float] = {}
        """Rows a second with each patience, when it was seen last."""
        self._upwards = True
        """Whether the next trial is of more patience."""
        self._vain = 0
        self._pause = _SOONEST
        self._due = _SOONEST
        self._reference = 0.0
        self._since: float | None = None
        """From when on an engine was free and something waited."""
        self._begun: dict[int, tuple[float | None, float]] = {}
        """The same of the runs that are under way, by engine, and the time before in which nothing waited and nothing ran."""
        self._first = 0
        """Rows that waited then."""
        self._ended: float | None = None
        self._idle = 0.0
        self._waited: list[int] = []
        self._waits = 0

    def follow(self) -> None:
        """Take over what the curve says now."""
        points = sorted(self._curve.points.values(), key=lambda each: each.rows)
        self._fixed = 0.0
        if self._most > 1 and len(points) > 1:
            few = points[0]
            # The cheapest row stands for what rows cost: of the others, some were measured while others had the core.
            self._row = row = min(each.seconds_a_row for each in points)
            fixed = few.rows * (few.seconds_a_row - row)
            self._fixed = fixed if fixed >= _LEAST_SECONDS else 0.0

    @property
    def reason(self) -> str:
        """Why it waits or not, in a sentence."""
        if not self._fixed:
            return "a run costs little but for its rows, as far as was measured"
        seen = self._rates | ({self.chosen: self._rows / self._cycle} if self._cycle else {})
        rates = ", ".join(f"{rate:.0f} with patience {_PATIENCE[level]}" for level, rate in sorted(seen.items()))
        return f"rows/s lately: {rates or 'not seen yet'}; a run costs {self._fixed * 1e3:.2f} ms whatever its rows"

    def wait_until(self, rows: int, most: int, arrived: float, now: float) -> float | None:
        """Until when the free engine waits for the next request; None: it runs what is there.

        Args:
            rows: that wait.
            most: that a run may have.
            arrived: when the last of them came.
            now: seconds of the clock of both.
        """
        if not self._fixed:
            return None
        if self._since is None:
            self._since = now
            self._first = rows
            ended = None if self._begun else self._ended
            self._idle = 0.0 if ended is None else min(max(now - ended, 0.0), self._fixed)
        if not self._level or rows >= most:
            return None
        since = self._since
        latest = since + self._fixed + most * self._row
        arrived = max(arrived, since)
        until = arrived + _PATIENCE[self._level] * (self._fixed + arrived - since) / rows
        if len(self._waited) == _REMEMBERED:
            expected = max(self._waited)
            if rows < expected and self._level == len(_PATIENCE) - 1:
                until = latest
            elif rows >= max(expected, 2) and self._waits % _REMEMBERED:
                return None
        until = min(until, latest)
        return until if until > now else None

    def forget(self) -> None:
        """Nothing waits any more, though nothing ran."""
        self._since = None

    def begin(self, rows: int, engine: int = 0) -> None:
        """An engine begins a run of so many rows."""
        self._begun[engine] = self._since, self._idle
        self._since = None
        if self._level and self._fixed:
            self._waits += 1
            self._waited = [*self._waited[1 - _REMEMBERED :], rows]
            self._vain = self._vain + 1 if rows <= self._first else 0

    def end(self, rows: int, began: float, ended: float, engine: int = 0) -> None:
        """An engine's run of so many rows has ended: learn from it, and choose."""
        waited, idle = self._begun.pop(engine, (None, 0.0))
        since = began if waited is None else waited
        if not self._fixed:
            return
        # Clocks that stand still for a run tell nothing of rates.
        cycle = max(ended - since + idle, _LEAST_CYCLE)
        self._ended = ended
        if self._left:
            self._continue_trial(rows, cycle)
            return
        self._rows += _GAIN * (rows - self._rows) if self._rows else rows
        self._cycle += _GAIN * (cycle - self._cycle) if self._cycle else cycle
        rate = self._rows / self._cycle
        if rate < _FALL * self._reference:
            self._reference = rate
            self._pause = _SOONEST
            self._due = min(self._due, _SOONEST)
        self._due -= 1
        if self._due <= 0:
            self._begin_trial()

    def _begin_trial(self) -> None:
        last = len(_PATIENCE) - 1
        self._upwards = self.chosen == 0 or (self.chosen < last and not self._upwards)
        self._level = self.chosen + (1 if self._upwards else -1)
        self._left = _TRIAL
        self._trial_rows = self._trial_cycle = 0.0
        self._vain = 0
        self._waited = []

    def _continue_trial(self, rows: int, cycle: float) -> None:
        self._left -= 1
        if self._left < _TRIAL - _UNCOUNTED:
            self._trial_rows += rows
            self._trial_cycle += cycle
        if self._trial_cycle:
            self._rates[self._level] = self._trial_rows / self._trial_cycle
        times = self._rates.get(self._level, 0.0) * self._cycle / self._rows
        tried = _TRIAL - self._left
        hopeless = tried >= 2 * _UNCOUNTED and times < _HOPELESS
        if hopeless or (self._upwards and self._vain >= _IN_VAIN):
            self._end_trial(better=False)
        elif not self._left:
            self._end_trial(better=times > (_MORE if self._upwards else _LESS))

    def _end_trial(self, *, better: bool) -> None:
        if better:
            self._rates[self.chosen] = self._rows / self._cycle
            self.chosen = self._level
            self._rows = self._trial_rows / (_TRIAL - _UNCOUNTED)
            self._cycle = self._trial_cycle / (_TRIAL - _UNCOUNTED)
        self._level = self.chosen
        self._left = 0
        self._pause = _SOONEST if better else min(2 * self._pause, _LATEST)
        self._due = self._pause
        self._reference = self._rows / self._cycle
