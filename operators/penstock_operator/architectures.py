"""Pods go to nodes of an architecture that their image was built for: elsewhere it would not start, or not be pulled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from penstock.api.meta import Manifest

ARCHITECTURE_LABEL: Final = "kubernetes.io/arch"
"""Of nodes; its values are Go's names, such as amd64 and arm64."""
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def keep_to(architectures: Sequence[str], pod: Manifest) -> Manifest:
    """A pod's spec that only nodes of these architectures take; as it is where it says itself which, or there are none given.

    Every term of its own node affinity is narrowed, since a node needs to match only one of them.
    """
    if not architectures or ARCHITECTURE_LABEL in pod.get("nodeSelector", {}):
        return pod
    affinity: dict[str, Any] = pod.get("affinity") or {}
    of_nodes: dict[str, Any] = affinity.get("nodeAffinity") or {}
    terms = (of_nodes.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    narrowed = {**of_nodes, _REQUIRED: {"nodeSelectorTerms": [_narrow(term, architectures) for term in terms]}}
    return {**pod, "affinity": {**affinity, "nodeAffinity": narrowed}}


def _narrow(term: Manifest, architectures: Sequence[str]) -> Manifest:
    told = term.get("matchExpressions", [])
    if any(each["key"] == ARCHITECTURE_LABEL for each in told):
        return term
    return {
        **term,
        "matchExpressions": [*told, {"key": ARCHITECTURE_LABEL, "operator": "In", "values": [*architectures]}],
    }
