"""What became of the replica's requests, as revisions are compared by it."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from penstock.protocol.refusals import Refusal, may_blame_model
from penstock.routing.outcomes import LATENCY_SECONDS, ReplicaOutcomes, ShadowOutcomes
from penstock_serving.replica.telemetry.load import Histogram

_MARK_SECONDS: Final = 10.0
_MARKS: Final = 3
"""What was answered since the oldest of them was answered of late."""
_OWN_MEMORY: Final = Path("/proc/self/statm")
_RESIDENT: Final = 1
"""Field of `statm`, in pages (proc(5))."""


class OutcomeMeter:
    """Counts always, since that costs less than to ask whether it should: some 0.2 µs a request.

    Args:
        now: seconds of the monotonic clock.
    """

    def __init__(self, now: float) -> None:
        self._seconds = Histogram(LATENCY_SECONDS)
        self._failed = 0
        self._counted = self._sampled = 0
        """Requests that ended since CPU time was shared out."""
        self._marks: deque[list[int]] = deque([list(self._seconds.counts)], maxlen=_MARKS)
        self._marked_at = 0.0
        self.begin(now)

    def begin(self, now: float) -> None:
        """From now on the replica can answer: what was before is no part of its age and its CPU time."""
        self._began_at = self._marked_at = now
        self._cpu_seconds = 0.0
        self._cpu_at = time.process_time()

    def count(self, reason: str, seconds: float) -> None:
        """A request has ended.

        Args:
            reason: of its refusal; empty: it was answered.
            seconds: that it took.
        """
        self._counted += 1
        if not reason:
            self._seconds.observe(seconds)
        elif reason != Refusal.DRAINING and may_blame_model(reason):
            self._failed += 1

    def count_sampled(self) -> None:
        """A request has ended that another replica showed, where it is counted."""
        self._sampled += 1

    def tick(self, now: float) -> None:
        """Remember the counts; called about once a second."""
        self._share_cpu()
        if now - self._marked_at >= _MARK_SECONDS:
            self._marked_at = now
            self._marks.append(list(self._seconds.counts))

    def tell(self, now: float, came: Iterable[float], shadow: ShadowOutcomes | None = None) -> ReplicaOutcomes:
        """All that was counted.

        Args:
            now: seconds of the monotonic clock.
            came: when those in flight did, by the same clock.
            shadow: of requests that were shown to others.
        """
        self._share_cpu()
        counts = self._seconds.counts
        longest = self._longest()
        return ReplicaOutcomes(
            age_seconds=now - self._began_at,
            answered=sum(counts),
            failed=self._failed,
            seconds={bucket: count for bucket, count in enumerate(counts) if count},
            late=sum(now - at > longest for at in came),
            cpu_seconds=self._cpu_seconds,
            memory_bytes=resident_bytes(),
            shadow=shadow,
        )

    def _share_cpu(self) -> None:
        """Take what the CPU has done since the last time, but for the part of samples, by number: their answers are not counted."""
        now = time.process_time()
        ended = self._counted + self._sampled
        self._cpu_seconds += (now - self._cpu_at) * (self._counted / ended if ended else 1.0)
        self._cpu_at, self._counted, self._sampled = now, 0, 0

    def _longest(self) -> float:
        """Within how many seconds all were answered that were of late; without any, all that ever were; 0: none ever was."""
        nothing = [0] * len(self._seconds.counts)
        for before in (self._marks[0], nothing):
            differing = [place for place, count in enumerate(self._seconds.counts) if count > before[place]]
            if differing:
                return LATENCY_SECONDS[min(differing[-1], len(LATENCY_SECONDS) - 1)]
        return 0.0


def resident_bytes() -> int:
    """This process's memory that is resident now; 0 where the system does not say."""
    try:
        return int(_OWN_MEMORY.read_text(encoding="ascii").split()[_RESIDENT]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
