"""What became of the replica's requests, as revisions are compared by it."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from penstock.protocol.refusals import Refusal, may_blame_model
from penstock.routing.outcomes import LATENCY_SECONDS, ReplicaOutcomes, ShadowOutcomes, ShownOutcomes, UnrunRequests
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
        self._failed = self._unfit = 0
        self._expired = Histogram(LATENCY_SECONDS)
        self._counted = self._sampled = 0
        """Requests that ended since CPU time was shared out."""
        self._shown_seconds = Histogram(LATENCY_SECONDS)
        self._shown_answered = self._shown_failed = 0
        self._shown_cpu_seconds = 0.0
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
        elif reason == Refusal.BAD_REQUEST:
            self._unfit += 1
        elif reason == Refusal.EXPIRED:
            self._expired.observe(seconds)
        elif _is_failure(reason):
            self._failed += 1

    def count_asked(self) -> None:
        """A request has ended that the replica showed itself, to know its own answer."""
        self._sampled += 1

    def count_shown(self, reason: str, seconds: float, cpu_seconds: float | None, *, again: bool) -> None:
        """A request has ended that another replica showed.

        Args:
            reason: of its refusal; empty: it was answered.
            seconds: that it took.
            cpu_seconds: of the process meanwhile; None: there was something else in the replica, so its time tells nothing.
            again: whether it was shown before.
        """
        self._sampled += 1
        if not reason:
            self._shown_answered += not again
            if cpu_seconds is not None:
                self._shown_seconds.observe(seconds)
                self._shown_cpu_seconds += cpu_seconds
        elif not again and _is_failure(reason):
            self._shown_failed += 1

    def tick(self, now: float) -> None:
        """Remember the counts; called about once a second."""
        self._share_cpu()
        if now - self._marked_at >= _MARK_SECONDS:
            self._marked_at = now
            self._marks.append(list(self._seconds.counts))

    def tell(
        self,
        now: float,
        came: Iterable[float],
        shadow: ShadowOutcomes | None = None,
        shown_came: Iterable[float] = (),
    ) -> ReplicaOutcomes:
        """All that was counted.

        Args:
            now: seconds of the monotonic clock.
            came: when clients' requests in flight did, by the same clock.
            shadow: of requests that were shown to others.
            shown_came: when those in flight did that others showed.
        """
        self._share_cpu()
        counts = self._seconds.counts
        longest = self._longest()
        filled = [place for place, count in enumerate(self._shown_seconds.counts) if count]
        longest_shown = _bound_of(filled[-1]) if filled else 0.0
        shown = ShownOutcomes(
            answered=self._shown_answered,
            failed=self._shown_failed,
            seconds=_count_by_bucket(self._shown_seconds),
            cpu_seconds=self._shown_cpu_seconds,
            late=sum(now - at > longest_shown for at in shown_came),
        )
        expired = _count_by_bucket(self._expired)
        return ReplicaOutcomes(
            age_seconds=now - self._began_at,
            answered=sum(counts),
            failed=self._failed + self._unfit + sum(expired.values()),
            seconds=_count_by_bucket(self._seconds),
            late=sum(now - at > longest for at in came),
            cpu_seconds=self._cpu_seconds,
            memory_bytes=resident_bytes(),
            shown=shown if shown != ShownOutcomes() else None,
            shadow=shadow,
            unrun=UnrunRequests(unfit=self._unfit, expired=expired),
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
                return _bound_of(differing[-1])
        return 0.0


def _bound_of(bucket: int) -> float:
    """Seconds that a bucket's answers took at most."""
    return LATENCY_SECONDS[min(bucket, len(LATENCY_SECONDS) - 1)]


def _is_failure(reason: str) -> bool:
    return reason != Refusal.DRAINING and may_blame_model(reason)


def _count_by_bucket(histogram: Histogram) -> dict[int, int]:
    return {bucket: count for bucket, count in enumerate(histogram.counts) if count}


def resident_bytes() -> int:
    """This process's memory that is resident now; 0 where the system does not say."""
    try:
        return int(_OWN_MEMORY.read_text(encoding="ascii").split()[_RESIDENT]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
