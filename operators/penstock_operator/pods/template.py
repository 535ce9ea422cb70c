"""Pod templates of platforms and tenants, laid over the pods that Penstock builds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from penstock.api.meta import Manifest
from penstock.api.pod_template import OWN_CONTAINERS, ContainerTemplate, PodTemplate
from penstock_operator.pods.merge import merge

_IDS: Final = frozenset({"runAsUser", "runAsGroup", "fsGroup"})
_NOT_MERGED: Final = frozenset({"containers", "idsFromCluster"})
"""Keys of a template's spec that say how it is merged."""


def with_templates(built: Manifest, templates: Iterable[PodTemplate | None], *, sidecars: bool = True) -> Manifest:
    """A pod template with these laid over it, in their order.

    A container of ours is changed where the pod has it; any other name adds one.

    Args:
        built: `metadata` and `spec`.
        templates: None: there is none.
        sidecars: whether containers may be added. A Job whose other container goes on would never end; what runs beside it
            is an init container with `restartPolicy: Always`.
    """
    names = {each["name"] for each in built["spec"]["containers"]}
    for each in templates:
        if each is not None:
            if each.spec.ids_from_cluster:
                built = _without_ids(built)
            built = merge(built, _patch(each, names, sidecars=sidecars))
    return built


def with_container_templates(built: Manifest, name: str, templates: Iterable[PodTemplate | None]) -> Manifest:
    """A container with what these say of one of this name."""
    for template in templates:
        for each in template.spec.containers if template is not None else ():
            if each.name == name:
                built = merge(built, _dump(each))
    return built


def _without_ids(built: Manifest) -> Manifest:
    context = built["spec"].get("securityContext") or {}
    left = {key: value for key, value in context.items() if key not in _IDS}
    return {**built, "spec": {**built["spec"], "securityContext": left}}


def _patch(template: PodTemplate, names: set[str], *, sidecars: bool) -> dict[str, Any]:
    patch = _dump(template)
    containers = [
        _dump(each)
        for each in template.spec.containers
        if each.name in names or (sidecars and each.name not in OWN_CONTAINERS)
    ]
    spec = {key: value for key, value in (patch.get("spec") or {}).items() if key not in _NOT_MERGED}
    return {**patch, "spec": spec | ({"containers": containers} if containers else {})}


def _dump(part: PodTemplate | ContainerTemplate) -> Manifest:
    dumped: Manifest = _strip_nulls(part.model_dump(mode="json", exclude_none=True, exclude_unset=True))
    return dumped


def _strip_nulls(value: Any) -> Any:
    """Also below what is passed on as it stands: merged, a null would take away what confines a pod."""
    if isinstance(value, dict):
        return {key: _strip_nulls(each) for key, each in value.items() if each is not None}
    return [_strip_nulls(each) for each in value] if isinstance(value, list) else value
