"""What the operator needs of a Kubernetes API: the protocol that a real one and the embedded one both fulfil.

Objects travel as plain manifests. One contract suite, `tests/contract/test_cluster_contract.py`, holds both to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from penstock.errors import Conflict, Unavailable

Manifest = dict[str, Any]
"""A Kubernetes object as it travels. Callers own what they get and what they pass: implementations copy."""


FORBIDDEN: Final = "Forbidden"
"""Reason of `Unavailable` where a right is missing (HTTP 403)."""
DENIED: Final = "Denied"
"""Reason of `Unavailable` where a policy of the platform refuses an object with another code than 403."""


def is_refusal(error: Exception) -> bool:
    """Whether the API answers and does not let it be: a right is missing, a quota is full, or a policy is against it."""
    return isinstance(error, Unavailable) and error.reason in {FORBIDDEN, DENIED}


class Gone(Unavailable):
    """A watch's resourceVersion is too old (HTTP 410). List again."""


class NotFound(Conflict):
    """The object that was to be changed is not there (any more)."""


class Key(NamedTuple):
    """An object's name within its kind. The namespace of cluster-scoped objects is empty."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """Where a kind lives in the API. `group` is empty for the core API."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    has_status: bool = False

    @property
    def api_version(self) -> str:
        """`apiVersion` of this kind's manifests."""
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True, slots=True)
class Excerpt(ResourceKind):
    """A kind of which only a part is wanted: lists and watches give what `project` makes of each object.

    Objects are projected as they come in, so that thousands of large ones are never held at a time.
    """

    project: Callable[[Manifest], Manifest] = field(default=dict, compare=False)
    """Must keep `metadata.name` and `metadata.namespace`."""


def project_excerpt(kind: ResourceKind, manifest: Manifest) -> Manifest:
    """What is wanted of an object of this kind."""
    return kind.project(manifest) if isinstance(kind, Excerpt) else manifest


NAMESPACE = ResourceKind("", "v1", "Namespace", "namespaces", namespaced=False, has_status=True)
SECRET = ResourceKind("", "v1", "Secret", "secrets")
CONFIG_MAP = ResourceKind("", "v1", "ConfigMap", "configmaps")
LEASE = ResourceKind("coordination.k8s.io", "v1", "Lease", "leases")
OF_PODS: Final[Mapping[str, str]] = MappingProxyType({"involvedObject.kind": "Pod"})
"""Fields of events that are about pods."""
CORE_EVENT = ResourceKind("", "v1", "Event", "events")
"""The same objects as `EVENT`, of which the API knows fields by this version's names."""
EVENT = ResourceKind("events.k8s.io", "v1", "Event", "events")
JOB = ResourceKind("batch", "v1", "Job", "jobs", has_status=True)


class EventType(StrEnum):
    """What a watch tells of an object. A bookmark only carries a newer resourceVersion."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


class Propagation(StrEnum):
    """What a deletion does to the objects that the deleted one owns."""

    BACKGROUND = "Background"
    ORPHAN = "Orphan"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. `resource_version` is where a later watch resumes."""

    type: EventType
    manifest: Manifest
    resource_version: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind at one moment. A watch from `resource_version` misses nothing."""

    items: tuple[Manifest, ...]
    resource_version: str


NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})
"""Any object will do."""


class Cluster(Protocol):
    """A Kubernetes API, real or embedded.

    Every method may raise `Unavailable` (no answer, 429, 5xx: retry with back-off). Writes raise `Invalid` where the
    API refuses the object, with its message; `Conflict` where someone else wrote first; `NotFound`, which is a
    `Conflict`, where the object to be changed is gone. Methods may be called from any thread.
    """

    def get(self, kind: ResourceKind, key: Key) -> Manifest | None:
        """The object, or None where there is none."""

    def list(
        self,
        kind: ResourceKind,
        namespace: str | None = None,
        labels: Mapping[str, str] = NO_LABELS,
        fields: Mapping[str, str] = NO_LABELS,
    ) -> Listing:
        """All objects of a kind in one namespace, or in all (None), that have all of these labels.

        Args:
            kind: of which.
            namespace: where.
            labels: by name.
            fields: by path, such as `involvedObject.kind`; the API knows a few of each kind.
        """

    def watch(
        self, kind: ResourceKind, namespace: str | None, resource_version: str, timeout_seconds: float
    ) -> Iterator[WatchEvent]:
        """Changes after `resource_version`, in order; ends by itself after about `timeout_seconds`.

        Raises:
            Gone: the API no longer remembers that far back.
        """

    def apply(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
        """Server-side apply, taking conflicting fields over; creates where absent.

        Fields that this manager applied before and now leaves out are removed. `status` is ignored where the kind
        has a status subresource.

        Raises:
            Conflict: the manifest has a `metadata.resourceVersion`, and it is not the present one.
        """

    def apply_status(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
        """Server-side apply of the status subresource: only `metadata.name`, `.namespace` and `status` are read.

        Raises:
            NotFound: the object does not exist.
        """

    def create(self, kind: ResourceKind, manifest: Manifest) -> Manifest:
        """Create; `Conflict` where it exists."""

    def update(self, kind: ResourceKind, manifest: Manifest) -> Manifest:
        """Replace; `Conflict` unless the manifest's `metadata.resourceVersion` is the present one."""

    def add_finalizer(self, kind: ResourceKind, manifest: Manifest, finalizer: str) -> Manifest:
        """Add a finalizer to the observed object; `Conflict` where it changed since. No-op where it is there."""

    def remove_finalizer(self, kind: ResourceKind, manifest: Manifest, finalizer: str) -> Manifest:
        """Remove a finalizer from the observed object; `Conflict` where it changed since. No-op where it is not there.

        The object goes when it is being deleted and this was its last finalizer.
        """

    def delete(
        self,
        kind: ResourceKind,
        key: Key,
        *,
        uid: str | None = None,
        propagation: Propagation = Propagation.BACKGROUND,
    ) -> None:
        """Delete, or mark as being deleted where it has finalizers. No-op where it is not there.

        Raises:
            Conflict: `uid` is given and the object of this name has another.
        """

    def close(self) -> None:
        """End running watches and give connections back."""


def key_of(manifest: Manifest) -> Key:
    """The key of a manifest."""
    metadata = manifest["metadata"]
    return Key(metadata.get("namespace") or "", metadata["name"])


def identity(kind: ResourceKind, manifest: Manifest) -> Manifest:
    """Which object a manifest is of, as the beginning of what is applied to it."""
    metadata = {name: manifest["metadata"][name] for name in ("name", "namespace") if name in manifest["metadata"]}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}


def owner_keys(manifest: Manifest, owner: ResourceKind) -> tuple[Key, ...]:
    """Keys of the owners of one kind, from `metadata.ownerReferences`: maps a secondary object to what owns it."""
    metadata = manifest["metadata"]
    namespace = (metadata.get("namespace") or "") if owner.namespaced else ""
    return tuple(
        Key(namespace, reference["name"])
        for reference in metadata.get("ownerReferences") or ()
        if reference["kind"] == owner.kind and reference["apiVersion"] == owner.api_version
    )


def list_owned(cluster: Cluster, kind: ResourceKind, namespace: str, owner: str) -> Iterator[Manifest]:
    """What the object with this uid owns, but for what is being deleted. Raises `Unavailable`."""
    for manifest in cluster.list(kind, namespace).items:
        metadata = manifest["metadata"]
        owners = {each["uid"] for each in metadata.get("ownerReferences") or ()}
        if owner in owners and metadata.get("deletionTimestamp") is None:
            yield manifest


def create_if_absent(cluster: Cluster, kind: ResourceKind, manifest: Manifest) -> None:
    """Create an object, unless a former attempt at the same thing already has."""
    try:
        cluster.create(kind, manifest)
    except Conflict as error:
        if error.reason != "AlreadyExists":
            raise
