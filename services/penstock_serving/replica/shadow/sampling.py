"""Which requests are samples, and how many a second: by chance, and never more than what they cost may be."""

from __future__ import annotations

import math
import random
from typing import Final

MOST_PER_SECOND: Final = 20.0
"""Samples, whatever share of the requests is asked for."""
CPU_SHARE: Final = 0.02
"""Of one core, that shadowing may take in the replica's process."""
OWN_RUN_SHARE: Final = 0.1
"""Of the time, that a replica which is its own twin may spend on its own answers again."""
_BURST: Final = 5.0
_NEVER: Final = 1 << 60
_STEADY: Final = 1 / 8
"""Weight of the last sample in the mean of what samples cost."""


class SampleBudget:
    """How many samples a second are within the bounds, by what the last ones cost."""

    def __init__(self) -> None:
        self._cpu_seconds = 0.0
        self._own_seconds = 0.0
        self.per_second = MOST_PER_SECOND

    def observe(self, cpu_seconds: float, own_seconds: float = 0.0) -> None:
        """A sample is done.

        Args:
            cpu_seconds: of this process, that it took.
            own_seconds: that this replica was asked for its own answer again.
        """
        self._cpu_seconds += (cpu_seconds - self._cpu_seconds) * _STEADY
        self._own_seconds += (own_seconds - self._own_seconds) * _STEADY
        most = MOST_PER_SECOND
        if self._cpu_seconds > 0:
            most = min(most, CPU_SHARE / self._cpu_seconds)
        if self._own_seconds > 0:
            most = min(most, OWN_RUN_SHARE / self._own_seconds)
        self.per_second = most


class Sampler:
    """Draws samples out of requests that come in groups. What is not drawn costs one subtraction a group.

    Gaps between samples are geometric, so that each request is one with the same probability, whatever the others. Where the
    budget is spent, none is, and the next gap is drawn anew. Of a group that has a sample, the first request stands at a random
    place, or the first of a batch would be drawn each time that all are to be.

    Args:
        budget: how many a second may be drawn.
        chance: what draws.
    """

    def __init__(self, budget: SampleBudget, chance: random.Random) -> None:
        self._budget = budget
        self._chance = chance
        self._share = 0.0
        self._left = _NEVER
        self._tokens = _BURST
        self._filled_at = 0.0

    def set_share(self, share: float) -> None:
        """Draw this share of the requests from now on."""
        if share != self._share:
            self._share = share
            self._left = self._gap()

    def draw(self, count: int, now: float) -> list[int]:
        """The places of the samples among so many requests.

        Args:
            count: of requests.
            now: seconds of the monotonic clock.
        """
        drawn: list[int] = []
        first = -1
        place = self._left - 1
        while place < count:
            if not self._take_token(now):
                place = count - 1 + self._gap()
                break
            if first < 0:
                first = self._chance.randrange(count)
            drawn.append((first + place) % count)
            place += self._gap()
        self._left = place + 1 - count
        return drawn

    def passes(self, count: int) -> bool:
        """Whether no sample is among so many requests, which are counted then."""
        if self._left > count:
            self._left -= count
            return True
        return False

    def _gap(self) -> int:
        """Requests to the next sample, at least 1."""
        if self._share <= 0:
            return _NEVER
        if self._share >= 1:
            return 1
        return 1 + int(math.log(1.0 - self._chance.random()) / math.log1p(-self._share))

    def _take_token(self, now: float) -> bool:
        tokens = self._tokens + (now - self._filled_at) * self._budget.per_second
        if tokens < 1:
            return False
        self._tokens = min(tokens, _BURST) - 1
        self._filled_at = now
        return True
