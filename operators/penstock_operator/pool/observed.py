"""What the pool's planner is told: its RayClusters, their pods, and what Serve runs on them. All was read a moment ago."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from penstock.api.meta import Manifest
from penstock.api.pool import ServingPool
from penstock.api.verdicts import epoch
from penstock_operator.deployment.observed import ObservedApplication
from penstock_operator.nodes.forecast import KubernetesNode
from penstock_operator.pool.names import (
    APPLIED,
    CLUSTER_LABEL,
    GROUP_KINDS,
    GROUP_LABEL,
    KIND_OF,
    NODE_TYPE_LABEL,
    TOOK_OVER,
)
from penstock_operator.pool.raycluster import GroupCount
from penstock_operator.pool.raypods import PoolSettings

_STUCK: Final = {
    "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "CrashLoopBackOff",
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
}  # fmt: skip
"""Reasons of a waiting container that do not pass by themselves."""
_BEFORE_IT_HAD_A_NODE: Final = {"FailedScheduling", "Preempting"}
"""What the scheduler said before it found a node."""
_LONGEST: Final = 300


@dataclass(frozen=True, slots=True)
class RayClusterView:
    """A `RayCluster` as it is."""

    name: str
    owner: str = ""
    """Uid of the pool that it belongs to."""
    created: float = 0.0
    """In epoch seconds."""
    deleting: bool = False
    kind: str = ""
    """`penstock_operator.pool.raycluster.replacement_hash` of what it was built from."""
    applied: str = ""
    secret: str = ""
    """The Secret with its token."""
    took_over: float | None = None
    """Since when it serves or served, in epoch seconds; None: it never did."""
    resource_version: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """All of it, as it is."""
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    groups: Mapping[str, GroupCount] = field(default_factory=dict)
    """In their order."""
    suspended: bool = False
    """Whether it was told to give its pods back."""
    head_ready: bool = False
    head_since: float | None = None
    """Since when it is so, ready or not, in epoch seconds; None: KubeRay has said nothing of it yet."""
    ever_ready: bool = False
    """Whether all its pods have been ready at the same time, since it was made or last suspended."""
    desired: int = 0
    ready: int = 0
    """Workers."""
    running: int = 0
    """Workers that have started, ready or not. KubeRay starts none before the head answers."""
    problem: str = ""
    """What KubeRay says keeps it from making or ending pods."""
    problem_reason: str = ""
    """Which pods: `FailedCreateHeadPod`, `FailedCreateWorkerPod`, …"""

    @property
    def never_ran(self) -> bool:
        """Whether no model can run on it, nor ever did since its pods were made.

        That not all of its pods have been ready at once says nothing of that: a pool may serve for weeks while one group
        finds no node.
        """
        return not (self.ever_ready or self.head_ready or self.running)


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of a RayCluster."""

    name: str
    cluster: str
    group: str
    """Empty: the head."""
    ready: bool = False
    unschedulable: str | None = None
    """What the scheduler says, where no node takes it."""
    stuck: str | None = None
    """Why a container does not run, where it is not just starting."""
    is_prepared: bool = False
    """Whether its node makes it ready to start: it mounts volumes, gives it an address, fetches images."""


@dataclass(frozen=True, slots=True)
class PoolObserved:
    """All that decides what happens to one managed `ServingPool`."""

    pool: ServingPool
    settings: PoolSettings
    secret: str
    """Name of the Secret with Ray's token."""
    clusters: tuple[RayClusterView, ...] = ()
    pods: tuple[PodView, ...] = ()
    """Of the RayClusters of which pods are missing."""
    nodes: tuple[KubernetesNode, ...] | None = None
    """None: nothing is known of the cluster's nodes."""
    room: tuple[KubernetesNode, ...] | None = None
    """The same with the pods that wait for a node on them. This and `elsewhere` only where a replacement is to begin."""
    elsewhere: tuple[RayClusterView, ...] = ()
    """Candidates of other pools, in all namespaces that are watched, of which pods are missing."""
    applications: Mapping[str, tuple[ObservedApplication, ...]] = field(default_factory=dict)
    """By RayCluster, of those that were asked and answered."""


def view(manifest: Manifest) -> RayClusterView:
    """A RayCluster's manifest as what the planner is told."""
    metadata, spec, status = manifest["metadata"], manifest.get("spec") or {}, manifest.get("status") or {}
    annotations = metadata.get("annotations") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    failure = conditions["ReplicaFailure"] if _holds(conditions, "ReplicaFailure") else {}
    kinds = _parse_mapping(annotations.get(GROUP_KINDS))
    took_over = annotations.get(TOOK_OVER)
    head_since = (conditions.get("HeadPodReady") or {}).get("lastTransitionTime")
    return RayClusterView(
        name=metadata["name"],
        owner=next((each["uid"] for each in metadata.get("ownerReferences") or () if each.get("controller")), ""),
        created=epoch(metadata["creationTimestamp"]) if metadata.get("creationTimestamp") else 0.0,
        deleting=bool(metadata.get("deletionTimestamp")),
        kind=annotations.get(KIND_OF, ""),
        applied=annotations.get(APPLIED, ""),
        secret=(spec.get("authOptions") or {}).get("secretName", ""),
        took_over=float(took_over) if took_over and took_over.isdecimal() else None,
        resource_version=metadata.get("resourceVersion", ""),
        spec=spec,
        annotations=annotations,
        groups={each["groupName"]: _count(each, kinds) for each in spec.get("workerGroupSpecs") or ()},
        suspended=bool(spec.get("suspend")),
        head_ready=_holds(conditions, "HeadPodReady"),
        head_since=epoch(head_since) if head_since else None,
        ever_ready=_holds(conditions, "RayClusterProvisioned"),
        desired=int(status.get("desiredWorkerReplicas") or 0),
        ready=int(status.get("readyWorkerReplicas") or 0),
        running=int(status.get("availableWorkerReplicas") or 0),
        problem=_failure_message(failure),
        problem_reason=str(failure.get("reason") or ""),
    )


def pod_view(manifest: Manifest) -> PodView:
    """A pod's manifest as what the planner is told."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled") or {}
    refused = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return PodView(
        name=metadata["name"],
        cluster=labels.get(CLUSTER_LABEL, ""),
        group="" if labels.get(NODE_TYPE_LABEL) == "head" else labels.get(GROUP_LABEL, ""),
        ready=_holds(conditions, "Ready"),
        unschedulable=str(scheduled.get("message") or "No node takes it.") if refused else None,
        stuck=_why_ended(status, conditions) or _why_stuck(containers),
        is_prepared=status.get("phase") == "Pending"
        and _holds(conditions, "PodScheduled")
        and all("waiting" in (each.get("state") or {"waiting": {}}) for each in containers),
    )


def with_warnings(pods: Sequence[PodView], events: Iterable[Manifest]) -> tuple[PodView, ...]:
    """Pods with what Kubernetes warns of: a volume that cannot be attached or mounted, an address that is not given.

    Only the last event of a pod that its node makes ready counts: what is followed by another is of the past, and other pods say
    themselves what is wrong.
    """
    last: dict[str, Manifest] = {}
    for each in events:
        name = (each.get("involvedObject") or {}).get("name", "")
        if name not in last or _time_of(each) >= _time_of(last[name]):
            last[name] = each
    return tuple(
        replace(pod, stuck=_warning(last[pod.name]))
        if pod.is_prepared and pod.stuck is None and _is_warning(last.get(pod.name, {}))
        else pod
        for pod in pods
    )


def _is_warning(event: Manifest) -> bool:
    return event.get("type") == "Warning" and event.get("reason") not in _BEFORE_IT_HAD_A_NODE


def _warning(event: Manifest) -> str:
    reason, said = str(event.get("reason") or "Warning"), _shorten(str(event.get("message") or "").strip())
    return f"{reason}: {said}" if said else reason


def _time_of(event: Manifest) -> str:
    """When it was last seen, by whichever of the fields its writer uses; RFC 3339 in UTC, so that later ones are greater."""
    series = event.get("series") or {}
    times = (event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime"))
    return max(
        (str(each)[:19] for each in times if each), default=str(event["metadata"].get("creationTimestamp") or "")
    )


def _why_ended(status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why Kubernetes has ended a pod, or is about to: evicted, preempted, refused by its node. Its containers only tell of a signal."""
    if status.get("phase") == "Failed" and status.get("reason"):
        return f"{status['reason']}: {_shorten(status.get('message') or 'its node ended it')}"
    if _holds(conditions, "DisruptionTarget"):
        target = conditions["DisruptionTarget"]
        return f"it is being ended ({target.get('reason')}): {_shorten(target.get('message') or 'another takes its place')}"
    return None


def _why_stuck(containers: Iterable[Mapping[str, Any]]) -> str | None:
    for each in containers:
        state = each.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        if waiting.get("reason") in _STUCK:
            said = _shorten(waiting.get("message") or "")
            return f"{waiting['reason']}: {said}" if said else str(waiting["reason"])
        if ended.get("exitCode"):
            why = ended.get("reason") or "Error"
            return f"its container {each.get('name')} ended with status {ended['exitCode']} ({why})"
    return None


def _failure_message(failure: Mapping[str, Any]) -> str:
    """The API's words: KubeRay puts its own, which are the reason once more, into a line before them."""
    lines, reason = str(failure.get("message") or "").splitlines(), str(failure.get("reason") or "")
    return " ".join(each for each in lines if each != reason) or reason


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _holds(conditions: Mapping[str, Mapping[str, Any]], kind: str) -> bool:
    return (conditions.get(kind) or {}).get("status") == "True"


def _count(group: Mapping[str, Any], kinds: Mapping[str, str]) -> GroupCount:
    leaving = (group.get("scaleStrategy") or {}).get("workersToDelete") or ()
    kind = kinds.get(group["groupName"], "")
    return GroupCount(int(group.get("replicas") or 0), tuple(leaving), kind, dict(group))


def _parse_mapping(text: str | None) -> dict[str, str]:
    """What we wrote; anything else counts as nothing known, which makes a replacement and no mistake."""
    try:
        content = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else {}
