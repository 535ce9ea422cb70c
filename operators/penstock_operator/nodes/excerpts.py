"""What is kept of nodes and pods: some hundreds of bytes of the tens of thousands that each is."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Final

from penstock_operator.nodes.forecast import KubernetesNode, PodDemand, Taint
from penstock_operator.nodes.requests import amounts_of, requests_of, tolerations_of
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
        "allocatable": amounts_of(status.get("allocatable") or {}),
        "ready": ready,
        "unschedulable": bool(spec.get("unschedulable")),
    }


def pod_excerpt(manifest: Manifest) -> Manifest:
    """What a pod asked for, on which node it is, and its address; where it waits for one, which it may be on instead.

    Of one that has ended nothing, nor of one that the scheduler is not to place yet.
    """
    spec, status = manifest.get("spec") or {}, manifest.get("status") or {}
    bound = spec.get("nodeName")
    if status.get("phase") in _ENDED or (not bound and spec.get("schedulingGates")):
        return _identity(manifest)
    if bound:
        place = {"node": sys.intern(bound), "address": status.get("podIP") or ""}
        return {**_identity(manifest), **place, "requests": requests_of(spec)}
    tolerated = tuple(tolerations_of(spec.get("tolerations") or ()))
    return {
        **_identity(manifest),
        "waiting": PodDemand(_WAITING, requests_of(spec), spec.get("nodeSelector") or {}, tolerated),
    }


NODE: Final = Excerpt("", "v1", "Node", "nodes", namespaced=False, has_status=True, project=node_excerpt)
POD: Final = Excerpt("", "v1", "Pod", "pods", has_status=True, project=pod_excerpt)


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


def _identity(manifest: Manifest) -> Manifest:
    metadata = manifest["metadata"]
    return {"metadata": {"name": metadata["name"], "namespace": sys.intern(metadata.get("namespace") or "")}}


def _intern(labels: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Nodes have mostly the same labels."""
    return {sys.intern(key): sys.intern(value) for key, value in labels}
