"""Names, labels and annotations of what a managed pool is made of, and its Ray token."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from typing import Any, Final

POOL_LABEL: Final = "penstock.dev/pool"
"""On everything that a pool is made of, pods too: the pool's name."""
DEFAULT_POOL_LABEL: Final = "penstock.dev/made-by-default"
"""On a pool that the operator made since its namespace had none."""
TOOK_OVER: Final = "penstock.dev/took-over-at"
"""On a RayCluster that serves or did: since when, in epoch seconds. Of several, the latest serves."""
KIND_OF: Final = "penstock.dev/replacement-hash"
"""On a RayCluster: a hash of all that cannot change while it runs."""
APPLIED: Final = "penstock.dev/applied-hash"
"""On a RayCluster: a hash of what was applied last, without what Ray's autoscaler writes."""
PUT_RIGHT: Final = "penstock.dev/put-right"
"""On what another hand changed: a hash of the change that was undone last, and when, in epoch seconds."""
GROUP_KINDS: Final = "penstock.dev/group-hashes"
"""On a RayCluster: for each worker group a hash of what cannot change while its workers run, as JSON."""
UNCHECKED_SURGE: Final = "penstock.dev/surge"
"""On a pool: `Unchecked` starts a replacement whether or not the nodes of now have room, for clusters that add nodes."""

CLUSTER_LABEL: Final = "ray.io/cluster"
NODE_TYPE_LABEL: Final = "ray.io/node-type"
GROUP_LABEL: Final = "ray.io/group"
"""KubeRay's labels on its pods."""

_LONGEST: Final = 50
"""KubeRay cuts the front off longer names of what it makes (its `CheckName`), by which two could become one."""
_LONGEST_LABEL: Final = 63
_SUFFIX: Final = 6
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def ray_cluster(pool: str, change: str | None = None) -> str:
    """The RayCluster of a pool; with `change`, a hash of what it is made for, that of a replacement.

    A pool's name that is too long for KubeRay, or has a dot, is shortened and gets a hash of itself.
    """
    base = f"penstock-{pool}"
    longest = _LONGEST - _SUFFIX - 1
    if len(base) > longest or not _LABEL.fullmatch(pool):
        plain = re.sub(r"[^a-z0-9-]", "-", base)[: longest - _SUFFIX - 1].rstrip("-")
        base = f"{plain}-{_digest(pool)[:_SUFFIX]}"
    return base if change is None else f"{base}-{change[:_SUFFIX]}"


def label(pool: str) -> str:
    """The value of `POOL_LABEL`: the pool's name, shortened where a label's value must be."""
    return pool if len(pool) <= _LONGEST_LABEL else ray_cluster(pool)


def head_service(ray_cluster_name: str) -> str:
    """The Service that KubeRay makes for a RayCluster's head."""
    return f"{ray_cluster_name}-head-svc"


def dashboard_url(ray_cluster_name: str, namespace: str) -> str:
    """Ray's dashboard, which also takes Serve applications."""
    return f"http://{head_service(ray_cluster_name)}.{namespace}.svc:8265"


def serve_url(ray_cluster_name: str, namespace: str) -> str:
    """Ray Serve's proxy, which wakes models at zero replicas."""
    return f"http://{head_service(ray_cluster_name)}.{namespace}.svc:8000"


def ray_token(secret: str, uid: str) -> str:
    """Ray's authentication token of one pool: HMAC-SHA256 of `pool/UID` with the operator's secret, in hex.

    Derived, so that the operator needs no right to read Secrets, and another pool of the same name has another.
    """
    return hmac.new(secret.encode(), f"pool/{uid}".encode(), hashlib.sha256).hexdigest()


def token_secret(pool: str, token: str) -> str:
    """The Secret that holds a pool's token. Its name says which token, since it never changes."""
    return f"{ray_cluster(pool)}-ray-{_digest(token)[:10]}"


def digest(content: Mapping[str, Any]) -> str:
    """Twelve hex digits over a JSON object, whatever the order of its keys."""
    return _digest(json.dumps(content, sort_keys=True, separators=(",", ":")))[:12]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
