"""The runs that are under way: when each began, when it should end, and so when an engine is free."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class EngineTurn:
    """What one of the engines that run at once does."""

    requests: int = 0
    """Of its run; 0: it has none."""
    began: float = 0.0
    """When its run began, and `ends`, when that should end."""
    ends: float = 0.0
    free_since: float | None = None
    """When its last run ended, where requests waited then."""

    def remaining(self, now: float) -> float:
        """Seconds until it is free. A run that is late is expected to be late by as much again."""
        return abs(self.ends - now) if self.requests else 0.0


class UnderWay:
    """The runs of so many engines, one each.

    Args:
        most: runs that may be under way.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._turns = [EngineTurn() for _ in range(most)]
        self.requests = 0
        """Of all runs."""

    def begin(self, engine: int, requests: int, now: float, seconds: float) -> None:
        """An engine begins a run that is expected to take so long."""
        turn = self._turns[engine]
        turn.requests += requests
        self.requests += requests
        turn.began = now
        turn.ends = now + seconds

    def end(self, engine: int, requests: int) -> EngineTurn:
        """An engine's run is over: what is known of it. After a defect that made the batcher start over, nothing is."""
        turn = self._turns[engine]
        done = min(requests, turn.requests)
        turn.requests -= done
        self.requests -= done
        return turn

    def forget(self) -> None:
        """No run counts any more, though it may still end."""
        self.requests = 0
        for turn in self._turns:
            turn.requests, turn.free_since = 0, None

    def is_late(self, now: float) -> bool:
        """Whether a run takes longer than was expected, and no engine is free."""
        if self.most == 1:
            turn = self._turns[0]
            return turn.requests > 0 and now > turn.ends
        return all(turn.requests for turn in self._turns) and any(now > turn.ends for turn in self._turns)

    def remaining(self, now: float) -> list[float]:
        """Seconds until each engine is free, the soonest first."""
        return sorted(turn.remaining(now) for turn in self._turns)
