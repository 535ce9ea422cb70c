"""Strategic merge of pod specs, as `kubectl patch --type=strategic` does it, without its `$patch` directives.

Maps are merged, and a null takes a key out. Lists whose elements Kubernetes knows by a key are merged element by element, what is
new at their end; all other lists are taken as a whole. Which list has which key is `patchMergeKey` of k8s.io/api/core/v1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_MERGE_KEYS: Final[Mapping[str, str]] = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
"""By the list's field. Below a pod's spec no field has one of these names and another key or none."""
_ADDED: Final = frozenset({"tolerations"})
"""Lists that kubectl takes as a whole and that are added up here: more tolerations take nothing away, and a template for all of
a pool's pods must not take a group's own from it."""


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `patch` merged into it; neither is changed."""
    merged = dict(base)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_value(key, base.get(key), value)
    return merged


def _merge_value(key: str, old: Any, new: Any) -> Any:
    if isinstance(new, Mapping):
        return merge(old if isinstance(old, Mapping) else {}, new)
    if not isinstance(new, list):
        return new
    if key in _ADDED:
        return [*(old or ()), *(each for each in new if each not in (old or ()))]
    identity = _MERGE_KEYS.get(key)
    return new if identity is None else _merge_list(old or (), new, identity)


def _merge_list(old: Sequence[Any], new: Sequence[Any], identity: str) -> list[Any]:
    merged = [dict(each) for each in old]
    places = {each.get(identity): place for place, each in enumerate(merged)}
    for each in new:
        place = places.setdefault(each.get(identity), len(merged))
        if place == len(merged):
            merged.append(merge({}, each))
        else:
            merged[place] = merge(merged[place], each)
    return merged
