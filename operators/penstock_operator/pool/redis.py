"""The Redis that keeps a head's state, as KubeRay and Ray are told of it.

KubeRay has fields for its address, user and password. How it is trusted, Ray reads from variables of its own: `REDIS_CA_CERT`
and `REDIS_SERVER_NAME` of ray_config_def.h, with Ray's prefix. KubeRay's Job that empties the Redis is built from the head's
pod, so it has them too.
"""

from __future__ import annotations

from typing import Final

from penstock.api.meta import CertificateReference, Manifest, SecretKeyReference
from penstock.api.pool import GcsFaultTolerance

OVER_TLS: Final = "rediss://"
_AUTHORITY: Final = "/var/run/secrets/penstock-redis"
"""Folder of the head's container in which the authority lies."""


def options(tolerance: GcsFaultTolerance) -> Manifest:
    """KubeRay's `gcsFaultToleranceOptions`."""
    made: Manifest = {"redisAddress": tolerance.redis_address}
    if tolerance.username is not None:
        made["redisUsername"] = {"value": tolerance.username}
    if tolerance.username_secret_ref is not None:
        made["redisUsername"] = _from_secret(tolerance.username_secret_ref)
    if tolerance.password_secret_ref is not None:
        made["redisPassword"] = _from_secret(tolerance.password_secret_ref)
    return made


def variables(tolerance: GcsFaultTolerance | None) -> dict[str, str]:
    """Of the head's container, by which Ray checks the Redis' certificate; none where it speaks no TLS."""
    if tolerance is None or not tolerance.redis_address.startswith(OVER_TLS):
        return {}
    host = tolerance.redis_address.removeprefix(OVER_TLS).rpartition(":")[0]
    authority = tolerance.ca_secret_ref
    return {"RAY_REDIS_SERVER_NAME": host} | (
        {"RAY_REDIS_CA_CERT": f"{_AUTHORITY}/{authority.key}"} if authority is not None else {}
    )


def volumes(tolerance: GcsFaultTolerance | None) -> tuple[list[Manifest], list[Manifest]]:
    """The authority as a volume of the head's pod, and where it is mounted."""
    if tolerance is None or tolerance.ca_secret_ref is None:
        return [], []
    return [_volume(tolerance.ca_secret_ref)], [{"name": "redis-ca", "mountPath": _AUTHORITY, "readOnly": True}]


def _volume(authority: CertificateReference) -> Manifest:
    items = [{"key": authority.key, "path": authority.key}]
    return {"name": "redis-ca", "secret": {"secretName": authority.name, "items": items, "defaultMode": 0o440}}


def _from_secret(reference: SecretKeyReference) -> Manifest:
    return {"valueFrom": {"secretKeyRef": {"name": reference.name, "key": reference.key}}}
