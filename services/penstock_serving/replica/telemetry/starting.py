"""What a replica did from its actor's first line to its first answer, for the trace of the start."""

from __future__ import annotations

import time

from penstock.serving.arguments import Attempt
from penstock.serving.control import ReplicaSettings
from penstock.telemetry.startup import Phase, replica_start
from penstock_runtime.spans import SpanSink


class StartTrace:
    """Phases one after another, each from the end of the last.

    Args:
        settings: of the replica; without an owner nothing is told.
        began_ns: when the first phase began, in nanoseconds since the Unix epoch.
    """

    def __init__(self, settings: ReplicaSettings, began_ns: int) -> None:
        began = settings.started_ns or began_ns
        attempt = Attempt(number=settings.attempt, attempted_at=settings.attempted_at)
        self._told = bool(settings.owner_uid)
        self._place = replica_start(settings.owner_uid, settings.revision, attempt, began, settings.replica_id)
        self._phases: list[Phase] = []
        self._since = began

    def end_phase(self, name: str) -> None:
        """A phase is over, and the next begins."""
        now = time.time_ns()
        self._phases.append(Phase(name, self._since, now))
        self._since = now

    def export(self, sink: SpanSink) -> None:
        """Export all phases that are over."""
        if self._told and self._phases:
            sink.emit(self._place.spans(self._phases))

    def export_last(self, name: str, sink: SpanSink) -> None:
        """A phase is over after `export`: export it alone."""
        if self._told:
            sink.emit((self._place.phase(Phase(name, self._since, time.time_ns())),))
