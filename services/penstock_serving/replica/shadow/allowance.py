"""How much of the engine's time requests may have that other replicas show."""

from __future__ import annotations

from typing import Final

MOST_SHARE: Final = 0.2
"""Of the time. However many replicas show requests here, clients' find the engine free for the rest of it."""
QUIET_SHARE: Final = 0.8
"""The same where no client asks now."""
_SAVED_SECONDS: Final = 2.0
_SAVED_RUNS: Final = 3.0
"""What was not used is saved up to so much, or so many runs of a slow model: own answers are asked for again one after the other."""


class ShownAllowance:
    """Seconds of the engine that are left to what is shown. Times are seconds of the monotonic clock.

    Args:
        now: the clock.
    """

    def __init__(self, now: float) -> None:
        self._left = self._most = _SAVED_SECONDS
        self._at = now

    def admits(self, now: float, *, quiet: bool = False) -> bool:
        """Whether another request may run; `quiet`: no client has asked for a while."""
        share = QUIET_SHARE if quiet else MOST_SHARE
        self._left = min(self._left + (now - self._at) * share, self._most)
        self._at = now
        return self._left > 0

    def spend(self, seconds: float) -> None:
        """One has run, and took so much of the engine's time."""
        more = max(_SAVED_RUNS * seconds - self._most, 0.0)
        self._most += more
        self._left += more - seconds
