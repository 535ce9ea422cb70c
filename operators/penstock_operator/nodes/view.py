"""Follows nodes and pods, and tells what is free where."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from penstock_operator.nodes.excerpts import NODE, POD, kubernetes_node
from penstock_operator.nodes.forecast import KubernetesNode, place_waiting
from penstock_operator.runtime.cluster import Cluster
from penstock_operator.runtime.copies.cache import Recent
from penstock_operator.runtime.copies.change import Change
from penstock_operator.runtime.copies.informer import Informer, InformerSettings
from penstock_operator.runtime.loop.queue import Backoff

_FRESH_SECONDS: Final = 1.0
"""The sums over all pods are made at most this often."""
_PLACES_SECONDS: Final = 5.0
HOSTNAME_LABEL: Final = "kubernetes.io/hostname"
_PATIENT: Final = InformerSettings(backoff=Backoff(base=1.0, maximum=300.0))
"""Where the operator may not see nodes, it need not ask every few seconds."""


class ClusterView:
    """Kubernetes' nodes with what pods requested on them. Safe for several threads.

    It only ever explains and forecasts: without the right to see nodes and pods all else works, and says less.

    Args:
        cluster: where nodes and pods are.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._informers = [Informer(cluster, kind, _ignore, settings=_PATIENT) for kind in (NODE, POD)]
        self._seen: Recent[str, tuple[KubernetesNode, ...]] = Recent(_FRESH_SECONDS)
        self._places: Recent[str, dict[tuple[str, str], Mapping[str, str]]] = Recent(_PLACES_SECONDS)

    def start(self) -> None:
        """Begin to follow."""
        for informer in self._informers:
            informer.start()

    def wait_synced(self, timeout: float) -> bool:
        """Wait until both kinds have been listed once; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        return all(each.wait_synced(max(0.0, deadline - time.monotonic())) for each in self._informers)

    def nodes(self) -> tuple[KubernetesNode, ...] | None:
        """All nodes, at most a second old beside what the watches tell; None where they may not or not yet be seen."""
        return self._seen.obtain("now", self._sum_up) if self.wait_synced(0.0) else None

    def expected_nodes(self) -> tuple[KubernetesNode, ...] | None:
        """The same, with the pods that wait for a node placed where they fit."""
        return self._seen.obtain("expected", self._expect) if self.wait_synced(0.0) else None

    def place_of(self, namespace: str, address: str) -> Mapping[str, str]:
        """Labels of the node that a namespace's pod of this address is on, its name among them; none where that is not known."""
        if not self.wait_synced(0.0):
            return {}
        return self._places.obtain("places", self._find_places).get((namespace, address), {})

    def _find_places(self) -> dict[tuple[str, str], Mapping[str, str]]:
        nodes, pods = (informer.mirror for informer in self._informers)
        named = {each["metadata"]["name"]: each["labels"] for each in nodes.items()}
        return {
            (pod["metadata"]["namespace"], pod["address"]): {HOSTNAME_LABEL: pod["node"], **named.get(pod["node"], {})}
            for pod in pods.items()
            if pod.get("address")
        }

    def stop(self) -> None:
        """Ask the watches to end."""
        for informer in self._informers:
            informer.stop()

    def _expect(self) -> tuple[KubernetesNode, ...]:
        waiting = [pod["waiting"] for pod in self._informers[1].mirror.items() if "waiting" in pod]
        return place_waiting(waiting, self._seen.obtain("now", self._sum_up))

    def _sum_up(self) -> tuple[KubernetesNode, ...]:
        nodes, pods = (informer.mirror for informer in self._informers)
        requested: dict[str, dict[str, float]] = {}
        for pod in pods.items():
            if "node" not in pod:
                continue
            of_node = requested.setdefault(pod["node"], {})
            for resource, amount in pod["requests"].items():
                of_node[resource] = of_node.get(resource, 0.0) + amount
        return tuple(kubernetes_node(each, requested.get(each["metadata"]["name"], {})) for each in nodes.items())


def _ignore(_: Sequence[Change]) -> None:
    """Nothing is reconciled by a node's change: whoever waits for one looks again by itself."""
