"""What is kept of nodes and pods: some hundreds of bytes of the tens of thousands that each is."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from penstock.api.pool import Toleration
from penstock.api.quantity import number
from penstock.errors import Invalid
from penstock_operator.nodes.forecast import PODS, KubernetesNode, PodDemand, Taint
from penstock_operator.runtime.cluster import Excerpt, Manifest

_ENDED: Final = frozenset({"Succeeded", "Failed"})
_WAITING: Final = "a pod that waits for a node"


def node_excerpt(manifest: Manifest) -> Manifest:
    """Labels, taints and what the node offers, without annotations, images and conditions' history."""
    spec, status = manifest.get("spec") or {}, manifest.get("status") or {}
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in status.get("conditions") or ())
    return {
        **_identity(manifest),
        "labels": _intern((manifest["metadata"].get("labels") or {}).items()),
        "taints": tuple(
            Taint(each["key"], each.get("value") or "", each["effect"]) for each in spec.get("taints") or ()
        ),
        "allocatable": _amounts(status.get("allocatable") or {}),
        "ready": ready,
        "unschedulable": bool(spec.get("unschedulable")),
    }


def pod_excerpt(manifest: Manifest) -> Manifest:
    """What a pod asked for, and on which node it is; where it waits for one, which it may be on instead.

    Of one that has ended nothing, nor of one that the scheduler is not to place yet.
    """
    spec, status = manifest.get("spec") or {}, manifest.get("status") or {}
    bound = spec.get("nodeName")
    if status.get("phase") in _ENDED or (not bound and spec.get("schedulingGates")):
        return _identity(manifest)
    if bound:
        return {**_identity(manifest), "node": sys.intern(bound), "requests": requests_of(spec)}
    tolerated = tuple(_tolerations(spec.get("tolerations") or ()))
    return {
        **_identity(manifest),
        "waiting": PodDemand(_WAITING, requests_of(spec), spec.get("nodeSelector") or {}, tolerated),
    }


NODE: Final = Excerpt("", "v1", "Node", "nodes", namespaced=False, has_status=True, project=node_excerpt)
POD: Final = Excerpt("", "v1", "Pod", "pods", has_status=True, project=pod_excerpt)


def requests_of(spec: Mapping[str, Any]) -> dict[str, float]:
    """What a pod takes of its node, after `PodRequests` of k8s.io/component-helpers/resource.

    Containers and restartable init containers (sidecars) run together; each other init container runs beside the
    sidecars before it; the most of either counts, and the pod's overhead comes on top. What the pod asks for as a whole
    takes the place of what its containers do.
    """
    running = _sum(_requests_of_container(each) for each in spec.get("containers") or ())
    sidecars: dict[str, float] = {}
    starting: dict[str, float] = {}
    for each in spec.get("initContainers") or ():
        if each.get("restartPolicy") == "Always":
            sidecars = _sum((sidecars, _requests_of_container(each)))
            starting = _maximum(starting, sidecars)
        else:
            starting = _maximum(starting, _sum((sidecars, _requests_of_container(each))))
    needed = _maximum(_sum((running, sidecars)), starting)
    whole = _amounts((spec.get("resources") or {}).get("requests") or {})
    return _sum(({**needed, **whole}, _amounts(spec.get("overhead") or {}), {PODS: 1.0}))


def kubernetes_node(excerpt: Manifest, requested: Mapping[str, float]) -> KubernetesNode:
    """A node as the planner sees it."""
    return KubernetesNode(
        name=excerpt["metadata"]["name"],
        labels=excerpt["labels"],
        taints=excerpt["taints"],
        allocatable=excerpt["allocatable"],
        requested=requested,
        ready=excerpt["ready"],
        unschedulable=excerpt["unschedulable"],
    )


def _tolerations(tolerations: Iterable[Mapping[str, Any]]) -> Iterable[Toleration]:
    """Those of a kind that is not known here are left out, as if they tolerated nothing."""
    for each in tolerations:
        # Where Kubernetes is not told how to compare, it compares the value too.
        known = {"operator": "Equal"} | {name: each[name] for name in Toleration.model_fields if name in each}
        with contextlib.suppress(ValidationError):
            yield Toleration.model_validate(known)


def _identity(manifest: Manifest) -> Manifest:
    metadata = manifest["metadata"]
    return {"metadata": {"name": metadata["name"], "namespace": sys.intern(metadata.get("namespace") or "")}}


def _requests_of_container(container: Mapping[str, Any]) -> dict[str, float]:
    resources = container.get("resources") or {}
    return _amounts((resources.get("limits") or {}) | (resources.get("requests") or {}))


def _amounts(quantities: Mapping[str, Any]) -> dict[str, float]:
    """In base units. What cannot be read is left out: nothing here may fail for one odd object."""
    found: dict[str, float] = {}
    for resource, quantity in quantities.items():
        try:
            found[sys.intern(resource)] = number(str(quantity))
        except Invalid:
            continue
    return found


def _intern(labels: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Nodes have mostly the same labels."""
    return {sys.intern(key): sys.intern(value) for key, value in labels}


def _sum(amounts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for each in amounts:
        for resource, amount in each.items():
            total[resource] = total.get(resource, 0.0) + amount
    return total


def _maximum(left: Mapping[str, float], right: Mapping[str, float]) -> dict[str, float]:
    return {name: max(left.get(name, 0.0), right.get(name, 0.0)) for name in (*left, *right)}
