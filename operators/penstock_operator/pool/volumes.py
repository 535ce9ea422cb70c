"""Volumes of a managed pool's pods, and where they are mounted."""

from __future__ import annotations

from typing import Final

from penstock.api.meta import Manifest
from penstock.api.pool import ManagedRayCluster
from penstock.api.quantity import number
from penstock.serving.mounts import CACHE_ROOT, CLAIMS_ROOT, CREDENTIALS_ROOT

_CACHE_MARGIN: Final = 1.25
"""An emptyDir past its limit evicts the pod, so the limit leaves room for what is being fetched."""


def model_volumes(
    spec: ManagedRayCluster, artifact_secret: str | None, namespace: str
) -> tuple[list[Manifest], list[Manifest]]:
    """The cache, the credentials that are there or may come, and the claims."""
    cache = spec.cache
    if cache.host_path is not None:
        # The folder must be there, and everyone may write there: the kubelet makes a namespace's own folder in it, as root
        # and with the same mode. A pod sees its namespace's alone, since who writes a cache decides what is served.
        volumes: list[Manifest] = [{"name": "cache", "hostPath": {"path": cache.host_path, "type": "Directory"}}]
        mounts: list[Manifest] = [{"name": "cache", "mountPath": CACHE_ROOT, "subPath": namespace}]
    else:
        volumes = [empty_volume("cache", str(int(number(cache.max_bytes) * _CACHE_MARGIN)))]
        mounts = [{"name": "cache", "mountPath": CACHE_ROOT}]
    secrets = [
        *(each.name for each in spec.credentials),
        *([artifact_secret] if artifact_secret else []),
    ]
    for index, name in enumerate(dict.fromkeys(secrets)):
        secret = {"secretName": name, "optional": True, "defaultMode": 0o440}
        volumes.append({"name": f"credentials-{index}", "secret": secret})
        mounts.append({"name": f"credentials-{index}", "mountPath": f"{CREDENTIALS_ROOT}/{name}", "readOnly": True})
    for index, reference in enumerate(spec.model_claims):
        volumes.append(
            {"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": reference.name, "readOnly": True}}
        )
        mounts.append({"name": f"claim-{index}", "mountPath": f"{CLAIMS_ROOT}/{reference.name}", "readOnly": True})
    return volumes, mounts


def own_credentials() -> list[Manifest]:
    """As Kubernetes projects them where it mounts them by itself."""
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace", "apiVersion": "v1"}}
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]


def empty_volume(name: str, limit: str) -> Manifest:
    """A folder of the pod's own, of at most this size."""
    return {"name": name, "emptyDir": {"sizeLimit": limit}}
