"""A ConfigMap of private authorities, in pods whose containers are to trust them beside those of their image."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.api.meta import Manifest
from penstock.serving.mounts import TRUSTED_FILE, TRUSTED_ROOT, TRUSTED_VARIABLE

_VOLUME = "trusted"


@dataclass(frozen=True, slots=True)
class TrustedAuthorities:
    """A ConfigMap of that name in each namespace with models, as trust-manager and OpenShift write them."""

    config_map: str
    key: str = TRUSTED_FILE


def with_authorities(pod: Manifest, container: str, trusted: TrustedAuthorities | None) -> Manifest:
    """A pod's spec whose container of this name trusts them. Where the ConfigMap is absent, pods start without."""
    if trusted is None:
        return pod
    items = [{"key": trusted.key, "path": TRUSTED_FILE}]
    volume = {"name": _VOLUME, "configMap": {"name": trusted.config_map, "items": items, "optional": True}}
    mount = {"name": _VOLUME, "mountPath": TRUSTED_ROOT, "readOnly": True}
    variable = {"name": TRUSTED_VARIABLE, "value": f"{TRUSTED_ROOT}/{TRUSTED_FILE}"}
    containers = [
        {**each, "env": [*each["env"], variable], "volumeMounts": [*each["volumeMounts"], mount]}
        if each["name"] == container
        else each
        for each in pod["containers"]
    ]
    return {**pod, "containers": containers, "volumes": [*pod["volumes"], volume]}
