"""How many rows are worth a run: learnt from what runs took, so that joining ends where it loses."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from penstock_runtime.batching.curve import ServiceCurve

_LOSS: Final = 1.05
"""A row of a larger batch may cost so much more than the cheapest: less than that cannot be told from noise."""
_DEAR: Final = 1.25
"""What a row may cost more than the cheapest for the sake of the objective."""
_ONE_IN: Final = 32
"""Of the runs that could have a size that was never measured tries it."""
_ONE_IN_AGAIN: Final = 256
"""Of the runs tries a size again, so that a curve that has changed is seen. It delays what waits, so it is to be below the
hundredth part that an objective leaves free."""
_AGAIN_AFTER, _AGAIN_UNTIL = 8, 256
"""Runs after which a size that was left for a smaller one is tried again: they double. What made it dear may have been others'
work, which is over, and of the small sizes it is known only what they cost before."""


class BatchSizing:
    """Chooses the most rows of a run.

    Of the sizes 1, 2 to 3, 4 to 7, …, up to the most that is allowed, it is the largest whose rows cost at most 5 % more than the
    cheapest ones do: for a model whose weights are read once a run the largest, for one whose intermediate results leave the processor's
    cache 1. Where two runs of that size in a row would miss the objective, it is the largest that keeps it and whose rows cost at
    most a quarter more. Where none does, the size stays: a smaller one would answer fewer, and those no sooner, since they wait.

    Args:
        curve: what runs took.
        most_rows: that a batch may have.
        fixed: it is always the most.
    """

    def __init__(self, curve: ServiceCurve, most_rows: int, *, fixed: bool = False) -> None:
        self._curve = curve
        powers = curve.sizes
        self._sizes = powers[-1:] if fixed else powers
        self._most = {size: after - 1 for size, after in pairwise(self._sizes)} | {powers[-1]: most_rows}
        """What a size stands for goes up to so many rows."""
        self._open = self._sizes
        """Sizes that may be tried."""
        self._costs: dict[int, float] = {}
        self._runs = 0
        self._next = 0
        self._left = 0
        """A size that was left for a smaller one of late; 0: none."""
        self._again_at = self._again_after = 0
        self.rows = most_rows
        """The size that is chosen."""
        self._chosen = powers[-1]
        self.feasible = True
        """Whether runs of some size keep the objective."""

    def choose(self, objective: float | None, margin: float) -> None:
        """Choose anew, after something was measured.

        Args:
            objective: seconds within which an answer is due; None: there is none.
            margin: by how much times may be longer than the curve says.
        """
        # Runs of other sizes happen, where fewer requests wait, but are not chosen.
        self._costs = costs = {size: cost for size, cost in self._curve.costs().items() if size in self._most}
        self._open = self._sizes
        self.feasible = True
        # That a larger one is no better is to be seen, not to be taken for granted.
        best = self._sizes[-1]
        if costs:
            cheapest = min(costs.values())
            chosen = max(size for size in costs if costs[size] <= _LOSS * cheapest)
            best = chosen if chosen < max(costs) else best
        measured = {size: each for size, each in self._curve.points.items() if size in self._most}
        if objective is not None and measured and not self._fits(best, objective, margin):
            bound = _DEAR * min(point.seconds_a_row for point in measured.values())
            fitting = [s for s in measured if measured[s].seconds_a_row <= bound and self._fits(s, objective, margin)]
            self.feasible = bool(fitting)
            if fitting:
                best = max(fitting)
                self._open = [size for size in self._sizes if size <= best]
        if self._left and best >= self._left:
            self._left = 0
        elif costs and best < self._chosen:
            self._left, self._again_after = self._chosen, _AGAIN_AFTER
            self._again_at = self._runs + _AGAIN_AFTER
        self._chosen = best
        self.rows = self._most[best]

    def _fits(self, size: int, objective: float, margin: float) -> bool:
        return 2 * self._curve.seconds(self._most[size]) * margin <= objective

    @property
    def reason(self) -> str:
        """Why so many rows, in a sentence."""
        costs = self._costs
        if not costs:
            return "no run was measured yet, so a batch may have all rows that are allowed"
        if len(self._sizes) == 1:
            return "no other size may be had"
        least = min(costs, key=lambda size: costs[size])
        cheapest = f"of what was measured, rows cost least in runs of {least} to {self._most[least]}"
        if not self.feasible:
            return f"{cheapest}; no size leaves the objective time for two runs"
        if len(self._open) < len(self._sizes):
            return f"{cheapest}; more than {self._most[self._open[-1]]} leave the objective no time for two runs"
        return cheapest

    def rows_for(self, waiting: int) -> int:
        """The most rows of the run that begins now; mostly `rows`.

        Args:
            waiting: rows that could run.
        """
        self._runs += 1
        if self._left and self._runs >= self._again_at and waiting >= self._left and self._left in self._open:
            return self._try_again()
        if self._runs % _ONE_IN or waiting <= 1 or len(self._open) == 1:
            return self.rows
        self._next = (self._next + 1) % len(self._open)
        size = self._open[self._next]
        known = size in self._costs
        return self.rows if size > waiting or (known and self._runs % _ONE_IN_AGAIN) else self._most[size]

    def _try_again(self) -> int:
        rows = self._most[self._left]
        self._again_after *= 2
        self._again_at = self._runs + self._again_after
        if self._again_after > _AGAIN_UNTIL:
            self._left = 0
        return rows
