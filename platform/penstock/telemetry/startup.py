"""The trace of a start: from `kubectl apply` to a revision's first answer.

Operator and replicas add to one trace without telling each other anything: its ids follow from what starts. A span that is
made twice, since a process was restarted, has the same ids both times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.api.conditions import DeploymentCondition
from penstock.api.meta import Condition, ConditionStatus
from penstock.api.optimization import OptimizationRun
from penstock.api.v1alpha1 import InferenceDeployment, InferenceDeploymentStatus
from penstock.planning.arguments import Attempt
from penstock.planning.conditions import epoch as seconds
from penstock.telemetry import names
from penstock.telemetry.spans import SpanContext, SpanRecord

WINDOW_SECONDS: Final = 900.0
"""A replica that starts later after its revision was declared, for load or after a loss, has a trace of its own."""
_NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Phase:
    """What a process did for a while. Times are nanoseconds since the Unix epoch."""

    name: str
    start_ns: int
    end_ns: int


def start_context(uid: str, revision: str, attempt: int) -> SpanContext:
    """The root span of a revision's start: ids from a SHA-256 over owner, revision and attempt."""
    digest = hashlib.sha256(f"penstock-start/{uid}/{revision}/{attempt}".encode()).digest()
    return SpanContext(int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1, sampled=True)


def phase_context(parent: SpanContext, name: str, who: str = "") -> SpanContext:
    """A phase's span in the trace of its parent, the same each time. `who` tells replicas apart."""
    digest = hashlib.sha256(f"{parent.span_id:016x}/{name}/{who}".encode()).digest()
    return SpanContext(parent.trace_id, int.from_bytes(digest[:8]) or 1, sampled=True)


@dataclass(frozen=True, slots=True)
class ReplicaStart:
    """A replica's place in traces: under its revision's start, or a trace of its own that is linked to it."""

    parent: SpanContext
    link: SpanContext | None
    """Of a trace of its own: the revision's start."""
    declared_ns: int
    """When the revision was declared; 0 where that is not known."""
    replica_id: str

    def phase(self, phase: Phase) -> SpanRecord:
        """The span of one phase."""
        return _span(phase, self.parent, self.replica_id)

    def spans(self, phases: Sequence[Phase]) -> tuple[SpanRecord, ...]:
        """All phases up to now, in their order, and what came before or stands around them."""
        if self.link is not None:
            begin, end = phases[0].start_ns, phases[-1].end_ns
            whole = SpanRecord(names.SPAN_REPLICA_START, self.parent, None, begin, end, links=(self.link,))
            return (whole, *map(self.phase, phases))
        scheduled = Phase(names.SPAN_SCHEDULE, self.declared_ns, phases[0].start_ns)
        known = 0 < scheduled.start_ns <= scheduled.end_ns
        return tuple(map(self.phase, (scheduled, *phases) if known else phases))


def replica_start(uid: str, revision: str, attempt: Attempt, began_ns: int, replica_id: str) -> ReplicaStart:
    """Where a replica's phases belong.

    Args:
        uid: of the `InferenceDeployment`.
        revision: what starts.
        attempt: which try, and when it was declared.
        began_ns: when the replica began, in nanoseconds since the Unix epoch.
        replica_id: tells this replica from others of the revision.
    """
    start = start_context(uid, revision, attempt.number)
    declared = attempt.attempted_at * _NANOSECONDS
    if began_ns - declared <= WINDOW_SECONDS * _NANOSECONDS:
        return ReplicaStart(start, None, declared, replica_id)
    own = start_context(uid, f"{revision}/{replica_id}", attempt.number)
    return ReplicaStart(own, start, declared, replica_id)


def operator_spans(
    deployment: InferenceDeployment,
    status: InferenceDeploymentStatus,
    attempt: Attempt,
    runs: Iterable[OptimizationRun] = (),
) -> tuple[SpanRecord, ...]:
    """The operator's part, once a revision is ready; nothing before. Kubernetes' times are whole seconds.

    Args:
        deployment: as it was before, with its former status.
        status: as it is now.
        attempt: of the revision that is ready.
        runs: the deployment's optimization runs.
    """
    ready = _true_since(status.conditions, DeploymentCondition.READY)
    if status.active_revision is None or ready is None or not _is_new(deployment.status, status):
        return ()
    metadata = deployment.metadata
    context = start_context(metadata.uid, status.active_revision, attempt.number)
    declared = attempt.attempted_at * _NANOSECONDS
    first = metadata.generation <= 1 or deployment.status.active_revision is None
    applied = _epoch(metadata.creation_timestamp) if first and metadata.creation_timestamp else declared
    attributes: Mapping[str, str | int | float | bool] = {
        names.ATTR_NAMESPACE: metadata.namespace,
        names.ATTR_MODEL: metadata.name,
        names.ATTR_REVISION: status.active_revision,
    }
    root = SpanRecord(names.SPAN_START, context, None, applied, max(ready, applied), attributes=attributes)
    phases = [*_waits(status, applied, declared), *_optimized(runs, applied, ready)]
    return (root, *(_span(each, context, str(each.start_ns)) for each in phases))


def _is_new(before: InferenceDeploymentStatus, now: InferenceDeploymentStatus) -> bool:
    """Whether this status is the first to say that its revision is ready."""
    was = _true_since(before.conditions, DeploymentCondition.READY) is not None
    return not was or before.active_revision != now.active_revision


def _waits(status: InferenceDeploymentStatus, applied: int, declared: int) -> Iterable[Phase]:
    """From apply to the declaration: for the pool, then to validate and plan."""
    if declared <= applied:
        return
    pool = _true_since(status.conditions, DeploymentCondition.POOL_READY)
    since = pool if pool is not None and applied < pool <= declared else applied
    if since > applied:
        yield Phase(names.SPAN_POOL, applied, since)
    yield Phase(names.SPAN_VALIDATE, since, declared)


def _optimized(runs: Iterable[OptimizationRun], applied: int, ready: int) -> Iterable[Phase]:
    """Searches that ended while this start was under way."""
    for run in runs:
        ended = _true_since(run.status.conditions, "Complete")
        began = _epoch(run.metadata.creation_timestamp) if run.metadata.creation_timestamp else None
        if began is not None and ended is not None and applied <= ended <= ready:
            yield Phase(names.SPAN_OPTIMIZE, began, ended)


def _true_since(conditions: Iterable[Condition], kind: str) -> int | None:
    for each in conditions:
        if each.type == kind and each.status is ConditionStatus.TRUE and each.last_transition_time:
            return _epoch(each.last_transition_time)
    return None


def _span(phase: Phase, parent: SpanContext, who: str) -> SpanRecord:
    return SpanRecord(
        phase.name, phase_context(parent, phase.name, who), parent, phase.start_ns, max(phase.end_ns, phase.start_ns)
    )


def _epoch(text: str) -> int:
    return int(seconds(text)) * _NANOSECONDS
