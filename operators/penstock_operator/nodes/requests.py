"""What a pod takes of its node, by its spec: resources, after Kubernetes' own reckoning, and what decides where it may be."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from penstock.api.pool import Toleration
from penstock.api.quantity import number
from penstock.errors import Invalid
from penstock_operator.nodes.forecast import PODS, PodDemand


def demand_of(what: str, spec: Mapping[str, Any]) -> PodDemand:
    """What a pod of this spec needs of its node. `what` names it in sentences: `a worker of group l4`."""
    requests = {name: amount for name, amount in requests_of(spec).items() if name != PODS}
    return PodDemand(
        what, requests, spec.get("nodeSelector") or {}, tuple(tolerations_of(spec.get("tolerations") or ()))
    )


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
    whole = amounts_of((spec.get("resources") or {}).get("requests") or {})
    return _sum(({**needed, **whole}, amounts_of(spec.get("overhead") or {}), {PODS: 1.0}))


def tolerations_of(tolerations: Iterable[Mapping[str, Any]]) -> Iterable[Toleration]:
    """Those of a kind that is not known here are left out, as if they tolerated nothing."""
    for each in tolerations:
        # Where Kubernetes is not told how to compare, it compares the value too.
        known = {"operator": "Equal"} | {name: each[name] for name in Toleration.model_fields if name in each}
        with contextlib.suppress(ValidationError):
            yield Toleration.model_validate(known)


def amounts_of(quantities: Mapping[str, Any]) -> dict[str, float]:
    """In base units. What cannot be read is left out: nothing here may fail for one odd object."""
    found: dict[str, float] = {}
    for resource, quantity in quantities.items():
        try:
            found[sys.intern(resource)] = number(str(quantity))
        except Invalid:
            continue
    return found


def _requests_of_container(container: Mapping[str, Any]) -> dict[str, float]:
    resources = container.get("resources") or {}
    return amounts_of((resources.get("limits") or {}) | (resources.get("requests") or {}))


def _sum(amounts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for each in amounts:
        for resource, amount in each.items():
            total[resource] = total.get(resource, 0.0) + amount
    return total


def _maximum(left: Mapping[str, float], right: Mapping[str, float]) -> dict[str, float]:
    return {name: max(left.get(name, 0.0), right.get(name, 0.0)) for name in (*left, *right)}
