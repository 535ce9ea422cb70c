"""The trace of a start: from `kubectl apply` to a revision's first answer.

Operator and replicas add to one trace without telling each other anything: its ids follow from what starts. A span that is
made twice, since a process was restarted, has the same ids both times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from penstock.api.conditions import DeploymentCondition
from penstock.api.meta import Condition, ConditionStatus
from penstock.api.verdicts import epoch as seconds
from penstock.serving.arguments import Attempt, BuildArguments
from penstock.telemetry import names
from penstock.telemetry.spans import SpanContext, SpanRecord

if TYPE_CHECKING:  # replicas, which trace their starts, have no use for what these are made of
    from penstock.api.optimization import OptimizationRun
    from penstock.api.v1alpha1 import InferenceDeployment, InferenceDeploymentStatus

WINDOW_SECONDS: Final = 900.0
"""A replica that starts later after its revision was declared, for load or after a loss, has a trace of its own."""
_NANOSECONDS: Final = 1_000_000_000
_Attributes = Mapping[str, str | int | float | bool]


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
    served: BuildArguments,
    runs: Sequence[OptimizationRun] = (),
) -> tuple[SpanRecord, ...]:
    """The operator's part, once a revision is ready; nothing before. Kubernetes' times are whole seconds.

    Args:
        deployment: as it was before, with its former status.
        status: as it is now.
        served: what the revision that is ready was declared with.
        runs: the deployment's optimization runs.
    """
    ready = _true_since(status.conditions, DeploymentCondition.READY)
    if status.active_revision is None or ready is None or not _is_new(deployment.status, status):
        return ()
    metadata = deployment.metadata
    context = start_context(metadata.uid, status.active_revision, served.attempt.number)
    declared = served.attempt.attempted_at * _NANOSECONDS
    first = metadata.generation <= 1 or _served_nothing(deployment.status, status, declared)
    applied = _epoch(metadata.creation_timestamp) if first and metadata.creation_timestamp else declared
    attributes: _Attributes = {
        names.ATTR_NAMESPACE: metadata.namespace,
        names.ATTR_MODEL: metadata.name,
        names.ATTR_REVISION: status.active_revision,
    }
    root = SpanRecord(names.SPAN_START, context, None, applied, max(ready, applied), attributes=attributes)
    maker = _producing_run(served, runs)
    known = _epoch(maker.metadata.creation_timestamp) if maker and maker.metadata.creation_timestamp else declared
    waits = _wait_phases(status, applied, known, declared) if first else [Phase(names.SPAN_RESOLVE, declared, declared)]
    became = {names.SPAN_RESOLVE: _resolve_attributes(deployment, status, served, maker)}
    return (
        root,
        *(
            _span(each, context, str(each.start_ns), became.get(each.name, {}))
            for each in (*waits, *_search_phases(runs, applied, ready))
        ),
    )


def _is_new(before: InferenceDeploymentStatus, now: InferenceDeploymentStatus) -> bool:
    """Whether this status is the first to say that its revision is ready."""
    was = _true_since(before.conditions, DeploymentCondition.READY) is not None
    return not was or before.active_revision != now.active_revision


def _served_nothing(before: InferenceDeploymentStatus, now: InferenceDeploymentStatus, declared: int) -> bool:
    """Whether the deployment was never ready until now: it had no other revision, and was not ready since before this one was declared.

    Its generation does not say: the operator's own writing of the number of replicas is one.
    """
    if before.active_revision not in {None, now.active_revision}:
        return False
    ready = next((each for each in before.conditions if each.type == DeploymentCondition.READY), None)
    return ready is None or not ready.last_transition_time or _epoch(ready.last_transition_time) <= declared


def _wait_phases(status: InferenceDeploymentStatus, applied: int, valid: int, declared: int) -> Iterable[Phase]:
    """From apply to the declaration: for the pool, for the spec's validation, for what is to serve.

    Validating, resolving and declaring are one step of the operator's, but where a search must make the model first.

    Args:
        status: as it is now.
        applied: when the deployment was made.
        valid: when the spec was known to be valid.
        declared: when the revision was declared.
    """
    declared = max(declared, applied)
    pool = _true_since(status.conditions, DeploymentCondition.POOL_READY)
    since = pool if pool is not None and applied < pool <= declared else applied
    valid = max(since, min(valid, declared))
    if since > applied:
        yield Phase(names.SPAN_POOL, applied, since)
    yield Phase(names.SPAN_VALIDATE, since, valid)
    yield Phase(names.SPAN_RESOLVE, valid, declared)


def _producing_run(served: BuildArguments, runs: Iterable[OptimizationRun]) -> OptimizationRun | None:
    """The run whose artifact is served; none where the deployment's own model is."""
    uri = served.replica.storage_uri
    return next((each for each in runs if each.status.artifact and each.status.artifact.storage_uri == uri), None)


def _resolve_attributes(
    deployment: InferenceDeployment,
    status: InferenceDeploymentStatus,
    served: BuildArguments,
    maker: OptimizationRun | None,
) -> _Attributes:
    """What model and profile became. No address: it may hold the signature by which it is open to whoever has it."""
    found: dict[str, str | int | float | bool] = {names.ATTR_FORMAT: str(served.replica.model_format)}
    if status.digest is not None:
        found[names.ATTR_DIGEST] = status.digest
    profile = deployment.spec.optimization_profile_ref
    if profile is not None:
        found[names.ATTR_PROFILE] = f"{profile.kind}/{profile.name}"
    if maker is not None:
        found[names.ATTR_RUN] = maker.metadata.name
    return found


def _search_phases(runs: Iterable[OptimizationRun], applied: int, ready: int) -> Iterable[Phase]:
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


def _span(phase: Phase, parent: SpanContext, who: str, attributes: _Attributes | None = None) -> SpanRecord:
    context = phase_context(parent, phase.name, who)
    end = max(phase.end_ns, phase.start_ns)
    return SpanRecord(phase.name, context, parent, phase.start_ns, end, attributes=attributes or {})


def _epoch(text: str) -> int:
    return int(seconds(text)) * _NANOSECONDS
