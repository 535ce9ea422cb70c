"""How many rows are worth a run: learnt from what runs took, so that joining ends where it loses."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from penstock_runtime.batching.curve import ServiceCurve

_LOSS: Final = 1.05
"""A row of a larger batch may cost so much more than the cheapest: less than that cannot be told from noise."""
_ONE_IN: Final = 32
"""Of the runs that could have a size that was never measured tries it."""
_ONE_IN_AGAIN: Final = 256
"""Of the runs tries a size again, so that a curve that has changed is seen. It delays what waits, so it is to be below the
hundredth part that an objective leaves free."""


class BatchSizing:
    """Chooses the most rows of a run.

    Of the sizes 1, 2 to 3, 4 to 7, …, up to the most that is allowed, it is the largest whose rows cost at most 5 % more than the
    cheapest ones do: for a model whose weights are read once a run the largest, for one whose intermediate results leave the processor's
    cache 1. Where there is an objective, sizes of which two runs in a row would miss it are left out, unless all would.

    Args:
        curve: what runs took.
        most_rows: that a batch may have.
        fixed: it is always the most.
    """

    def __init__(self, curve: ServiceCurve, most_rows: int, *, fixed: bool = False) -> None:
        self._curve = curve
        powers = [1 << power for power in range(most_rows.bit_length())]
        self._sizes = powers[-1:] if fixed else powers
        self._most = {size: after - 1 for size, after in pairwise(self._sizes)} | {powers[-1]: most_rows}
        """What a size stands for goes up to so many rows."""
        self._open = self._sizes
        """Sizes that may be tried."""
        self._runs = 0
        self._next = 0
        self.rows = most_rows
        """The size that is chosen."""
        self.feasible = True
        """Whether runs of some size keep the objective."""

    def choose(self, objective: float | None, margin: float) -> None:
        """Choose anew, after something was measured.

        Args:
            objective: seconds within which an answer is due; None: there is none.
            margin: by how much times may be longer than the curve says.
        """
        points = self._curve.points
        if not points:
            return
        self._open = sizes = self._sizes
        self.feasible = True
        if objective is not None:
            fitting = [size for size in sizes if 2 * self._curve.seconds(self._most[size]) * margin <= objective]
            self.feasible = bool(fitting)
            self._open = sizes = fitting or sizes
        costs = {size: points[size].seconds_a_row for size in sizes if size in points}
        if not costs:
            self.rows = self._most[sizes[-1]]
            return
        cheapest = min(costs.values())
        chosen = max(size for size in costs if costs[size] <= _LOSS * cheapest)
        # That a larger one is no better is to be seen, not to be taken for granted.
        self.rows = self._most[chosen if chosen < max(costs) else sizes[-1]]

    def rows_for(self, waiting: int) -> int:
        """The most rows of the run that begins now; mostly `rows`.

        Args:
            waiting: rows that could run.
        """
        self._runs += 1
        if self._runs % _ONE_IN or waiting <= 1 or len(self._open) == 1:
            return self.rows
        self._next = (self._next + 1) % len(self._open)
        size = self._open[self._next]
        known = size in self._curve.points
        return self.rows if size > waiting or (known and self._runs % _ONE_IN_AGAIN) else self._most[size]
