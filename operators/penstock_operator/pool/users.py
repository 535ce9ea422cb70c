"""Which deployments use which pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock_operator.runtime.cluster import Key, Manifest, key_of


def pool_of(manifest: Manifest) -> Key:
    """The pool that an `InferenceDeployment` names."""
    return Key(manifest["metadata"].get("namespace") or "", _pool_name(manifest))


def deployments_of(pool: Key, manifests: Sequence[Manifest]) -> list[Key]:
    """The deployments that name a pool."""
    return [key_of(each) for each in manifests if pool_of(each) == pool]


def _pool_name(manifest: Mapping[str, object]) -> str:
    spec = manifest.get("spec")
    reference = spec.get("poolRef") if isinstance(spec, dict) else None
    return str(reference.get("name") or "default") if isinstance(reference, dict) else "default"
