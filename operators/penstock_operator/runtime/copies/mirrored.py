"""A cluster whose followed kinds are read from their local copies.

What makes that safe:
- The copy takes the answers to our own writes at once, so a reconcile always sees what the one before it wrote.
- That an object is *not* there is never believed of a copy: the API itself is asked.
- A write that depends on what was read says which version that was; where it conflicts, the object is read anew.
- A process that begins to lead lists every kind again first (`refresh`), since another one wrote until then.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from penstock.errors import Conflict, PenstockError, Unavailable
from penstock_operator.runtime.cluster import (
    NO_LABELS,
    Cluster,
    Key,
    Listing,
    Manifest,
    NotFound,
    Propagation,
    ResourceKind,
    WatchEvent,
    key_of,
)
from penstock_operator.runtime.copies.informer import Changed, Informer, InformerSettings
from penstock_operator.runtime.copies.mirror import Mirror

Seen = Callable[[ResourceKind, str | None], Sequence[Manifest]]
"""The objects of a kind that is followed, in a namespace or in all (None), as the watches last told: the API is not asked."""


class MirroredCluster:
    """See `Cluster`. Kinds that nobody follows, or that have not been listed yet, are read from the API.

    Args:
        cluster: the API.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._informers: dict[tuple[ResourceKind, str | None], Informer] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_cluster(cls, cluster: Cluster) -> MirroredCluster:
        """This cluster with copies; itself where it has them already."""
        return cluster if isinstance(cluster, cls) else cls(cluster)

    def follow(
        self, kind: ResourceKind, changed: Changed, namespace: str | None, settings: InformerSettings
    ) -> Informer:
        """The one informer of this kind and namespace, which tells all that ask for it. The first one's settings hold."""
        with self._lock:
            found = self._informers.get((kind, namespace))
            if found is None:
                found = Informer(self._cluster, kind, changed, namespace=namespace, settings=settings)
                self._informers[kind, namespace] = found
            else:
                found.tell(changed)
            return found

    def refresh(self, *, patient: bool = True) -> None:
        """List every kind that has been listed, once more.

        What is refused in one namespace, or is no longer served, keeps nobody: its copy counts no more, and whoever wants it
        hears of that from the API.

        Args:
            patient: whether a kind that cannot be listed for another reason is to be tried again. Else it is left out, too.

        Raises:
            Unavailable: where `patient`, what `Cluster.list` does.
        """
        for informer in tuple(self._informers.values()):
            if not informer.synced:
                informer.outdate()  # a listing that is under way may have been asked for too early
                continue
            try:
                informer.refresh()
            except PenstockError as error:
                informer.note_failure(error)
                if informer.refusal:
                    continue
                if patient:
                    raise
                informer.outdate()

    def seen_objects(self, kind: ResourceKind, namespace: str | None = None) -> tuple[Manifest, ...]:
        """See `Seen`. Only to find out who looks again, and for what need not be complete."""
        return tuple(
            item
            for mirror in self._mirrors(kind, namespace)
            for item in mirror.items(namespace if kind.namespaced else None)
        )

    def seen_keys(self, kind: ResourceKind, namespace: str | None = None) -> set[Key]:
        """The keys of what `seen_objects` says."""
        return {key for mirror in self._mirrors(kind, namespace) for key in mirror.keys(namespace)}

    def has_listed(self, kind: ResourceKind) -> bool:
        """Whether all of a kind that is followed has been listed, but for namespaces that may not be read."""
        found = [informer for (of, _), informer in tuple(self._informers.items()) if of == kind]
        return bool(found) and all(informer.wait_settled(0.0) for informer in found)

    def unreadable_namespaces(self, kind: ResourceKind) -> frozenset[str]:
        """Namespaces in which the API does not let a kind be read: what was seen there last may be gone."""
        return frozenset(
            namespace
            for (of, namespace), informer in tuple(self._informers.items())
            if of == kind and namespace is not None and informer.refusal
        )

    def has_seen(self, kind: ResourceKind, key: Key) -> bool:
        """Whether there is such an object, as the watches last told."""
        return any(mirror.has(key) for mirror in self._mirrors(kind, key.namespace))

    def get(self, kind: ResourceKind, key: Key) -> Manifest | None:
        """See `Cluster.get`."""
        informer = self._informer(kind, key.namespace)
        found = None if informer is None else informer.mirror.get(key)
        return self._read(kind, key) if found is None else found

    def list(
        self,
        kind: ResourceKind,
        namespace: str | None = None,
        labels: Mapping[str, str] = NO_LABELS,
        fields: Mapping[str, str] = NO_LABELS,
    ) -> Listing:
        """See `Cluster.list`. Of a copy, the resourceVersion is none to watch from."""
        informer = self._informer(kind, namespace)
        if informer is None or fields:
            return self._cluster.list(kind, namespace, labels, fields)
        items = informer.mirror.items(namespace if kind.namespaced else None)
        if labels:
            items = tuple(
                each for each in items if labels.items() <= (each["metadata"].get("labels") or {}).items()
            )  # fmt: skip
        return Listing(items, "0")

    def watch(
        self, kind: ResourceKind, namespace: str | None, resource_version: str, timeout_seconds: float
    ) -> Iterator[WatchEvent]:
        """See `Cluster.watch`."""
        return self._cluster.watch(kind, namespace, resource_version, timeout_seconds)

    def apply(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
        """See `Cluster.apply`."""
        return self._write(kind, manifest, lambda: self._cluster.apply(kind, manifest, field_manager))

    def apply_status(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
        """See `Cluster.apply_status`."""
        return self._write(kind, manifest, lambda: self._cluster.apply_status(kind, manifest, field_manager))

    def create(self, kind: ResourceKind, manifest: Manifest) -> Manifest:
        """See `Cluster.create`."""
        return self._write(kind, manifest, lambda: self._cluster.create(kind, manifest))

    def update(self, kind: ResourceKind, manifest: Manifest) -> Manifest:
        """See `Cluster.update`."""
        return self._write(kind, manifest, lambda: self._cluster.update(kind, manifest))

    def add_finalizer(self, kind: ResourceKind, manifest: Manifest, finalizer: str) -> Manifest:
        """See `Cluster.add_finalizer`."""
        return self._write(kind, manifest, lambda: self._cluster.add_finalizer(kind, manifest, finalizer))

    def remove_finalizer(self, kind: ResourceKind, manifest: Manifest, finalizer: str) -> Manifest:
        """See `Cluster.remove_finalizer`."""
        return self._write(kind, manifest, lambda: self._cluster.remove_finalizer(kind, manifest, finalizer))

    def delete(
        self,
        kind: ResourceKind,
        key: Key,
        *,
        uid: str | None = None,
        propagation: Propagation = Propagation.BACKGROUND,
    ) -> None:
        """See `Cluster.delete`. The copy goes when the watch tells."""
        self._cluster.delete(kind, key, uid=uid, propagation=propagation)

    def close(self) -> None:
        """See `Cluster.close`."""
        self._cluster.close()

    def _mirrors(self, kind: ResourceKind, namespace: str | None) -> Sequence[Mirror]:
        """Those of a kind that may hold objects of a namespace, or of any (None)."""
        return [
            informer.mirror
            for (of, scope), informer in tuple(self._informers.items())
            if of == kind and (scope is None or namespace is None or scope == namespace)
        ]

    def _informer(self, kind: ResourceKind, namespace: str | None) -> Informer | None:
        """The one that holds this kind's objects of this namespace, where there is one that has listed them."""
        for scope in (None, namespace) if namespace else (None,):
            found = self._informers.get((kind, scope))
            if found is not None and found.synced:
                return found
        return None

    def _write(self, kind: ResourceKind, manifest: Manifest, write: Callable[[], Manifest]) -> Manifest:
        key = key_of(manifest)
        informer = self._informer(kind, key.namespace)
        try:
            answer = write()
        except NotFound:
            raise
        except Conflict:
            if informer is not None:
                # The copy was not the newest: the next look has it. Where it may not be read, the watch tells later.
                with contextlib.suppress(Unavailable):
                    self._read(kind, key)
            raise
        if informer is not None:
            informer.note(answer)
        return answer

    def _read(self, kind: ResourceKind, key: Key) -> Manifest | None:
        """From the API. What is found is noted."""
        found = self._cluster.get(kind, key)
        informer = self._informer(kind, key.namespace)
        if found is not None and informer is not None:
            informer.note(found)
        return found
