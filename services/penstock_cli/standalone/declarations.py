"""What every run declares in its store before it serves: this machine's Ray as the default pool, and the shipped profiles."""

from __future__ import annotations

from typing import Final

from penstock.api.meta import Manifest
from penstock.errors import Invalid
from penstock_cli import shipped
from penstock_cli.objects.resources import FIELD_MANAGER, kind_of
from penstock_cli.standalone.ray_head import RayAccess
from penstock_operator.kinds import SERVING_POOL
from penstock_operator.runtime.cluster import SECRET, Cluster, Key, key_of

POOL: Final = Key("default", "default")
_TOKEN_SECRET: Final = "ray-token"  # noqa: S105 (the name of a Secret)


def declare_pool(cluster: Cluster, ray: RayAccess) -> None:
    """Declare the default pool: this machine's Ray."""
    existing: Manifest = {"address": ray.url, "serveAddress": ray.serve_url}
    if ray.token:
        cluster.apply(
            SECRET,
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": _TOKEN_SECRET, "namespace": "default"},
                "stringData": {"token": ray.token},
            },
            FIELD_MANAGER,
        )
        existing["tokenSecretRef"] = {"name": _TOKEN_SECRET}
    pool = {
        "apiVersion": SERVING_POOL.api_version,
        "kind": SERVING_POOL.kind,
        "metadata": {"name": POOL.name, "namespace": POOL.namespace},
        "spec": {"existing": existing},
    }
    cluster.apply(SERVING_POOL, pool, FIELD_MANAGER)


def declare_profiles(cluster: Cluster) -> None:
    """Declare the shipped profiles. One of another version of Penstock gives way, since profiles cannot be changed."""
    for manifest in shipped.profiles():
        kind = kind_of(manifest)
        try:
            cluster.apply(kind, manifest, FIELD_MANAGER)
        except Invalid:
            cluster.delete(kind, key_of(manifest))
            cluster.apply(kind, manifest, FIELD_MANAGER)
