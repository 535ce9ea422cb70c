"""Adding and removing finalizers, for a cluster that can set the whole list."""

from __future__ import annotations

from abc import ABC, abstractmethod

from penstock_operator.runtime.cluster import Manifest, ResourceKind


class Finalizers(ABC):
    """The part of `Cluster` that is the same however the list is written."""

    @abstractmethod
    def _set_finalizers(self, kind: ResourceKind, manifest: Manifest, finalizers: tuple[str, ...]) -> Manifest:
        """Replace the observed object's finalizers; `Conflict` where it changed since."""

    def add_finalizer(self, kind: ResourceKind, manifest: Manifest, finalizer: str) -> Manifest:
        """See `Cluster.add_finalizer`."""
        present = manifest["metadata"].get("finalizers") or []
        if finalizer in present:
            return manifest
        return self._set_finalizers(kind, manifest, (*present, finalizer))

    def remove_finalizer(self, kind: ResourceKind, manifest: Manifest, finalizer: str) -> Manifest:
        """See `Cluster.remove_finalizer`."""
        present = manifest["metadata"].get("finalizers") or []
        if finalizer not in present:
            return manifest
        return self._set_finalizers(kind, manifest, tuple(name for name in present if name != finalizer))
