"""Who may reach a managed pool's pods, and whom they may reach: its NetworkPolicies.

A policy counts only where the cluster's network enforces them; Ray's token guards the dashboard in any case.
"""

from __future__ import annotations

from typing import Final

from penstock.api.meta import Manifest
from penstock.api.pool import ServingPool
from penstock.names import owner_reference
from penstock_operator.egress import all_peers, credential_services
from penstock_operator.pool.names import APPLIED, NODE_TYPE_LABEL, POOL_LABEL, digest, label, ray_cluster

NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
"""Kubernetes puts it on every namespace."""
_DASHBOARD: Final = 8265
_SERVE: Final = 8000
_METRICS: Final = 8080
_REPLICA_PORTS: Final = ((32768, 52364), (52366, 60999))
"""Replicas listen on ports that Linux picks (ip_local_port_range), of which 52365 is the agent of Ray's dashboard."""
_DNS: Final = 53


def policies(pool: ServingPool, system_namespace: str, *, cloud_identity: bool = False) -> tuple[Manifest, ...]:
    """The NetworkPolicies of a pool: one for its head, one for its workers.

    Only the operator reaches the dashboard, only the gateways wake models and reach replicas, and a pool's pods reach
    each other. Whatever else is in the namespace, or in another, reaches nothing. Outwards all is open but the clouds'
    metadata services, since models may lie anywhere; `cloud_identity` opens those, too, for workload identity.
    """
    more = credential_services() if cloud_identity else []
    return (
        _policy(
            pool,
            "head",
            more,
            [
                _rule([_pool_pods(pool)], []),
                _rule([_system_pods(system_namespace, "operator")], [_port(_DASHBOARD), _port(_SERVE)]),
                _rule([_system_pods(system_namespace, "gateway")], [_port(_SERVE)]),
                _rule([_scraper()], [_port(_METRICS)]),
            ],
        ),
        _policy(
            pool,
            "worker",
            more,
            [
                _rule([_pool_pods(pool)], []),
                _rule(
                    [_system_pods(system_namespace, "gateway")], [_port(first, last) for first, last in _REPLICA_PORTS]
                ),
                _rule([_scraper()], [_port(_METRICS)]),
            ],
        ),
    )


def _policy(pool: ServingPool, node_type: str, more: list[Manifest], ingress: list[Manifest]) -> Manifest:
    metadata = pool.metadata
    spec: Manifest = {
        "podSelector": {"matchLabels": {POOL_LABEL: label(metadata.name), NODE_TYPE_LABEL: node_type}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": [
            {"to": [_pool_pods(pool)]},
            {"ports": [_port(_DNS, protocol="UDP"), _port(_DNS)]},
            {"to": all_peers()},
            *more,
        ],
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": f"{ray_cluster(metadata.name)}-{node_type}",
            "namespace": metadata.namespace,
            "labels": {POOL_LABEL: label(metadata.name), "app.kubernetes.io/managed-by": "penstock"},
            "annotations": {APPLIED: digest(spec)},
            "ownerReferences": [owner_reference(pool.api_version, pool.kind, metadata)],
        },
        "spec": spec,
    }


def _pool_pods(pool: ServingPool) -> Manifest:
    return {"podSelector": {"matchLabels": {POOL_LABEL: label(pool.metadata.name)}}}


def _system_pods(namespace: str, component: str) -> Manifest:
    return {
        "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: namespace}},
        "podSelector": {
            "matchLabels": {"app.kubernetes.io/name": "penstock", "app.kubernetes.io/component": component}
        },
    }


def _scraper() -> Manifest:
    """Namespaces that say of themselves that they collect metrics; who may label namespaces is the platform's."""
    return {"namespaceSelector": {"matchLabels": {"penstock.dev/collects-metrics": "true"}}}


def _rule(sources: list[Manifest], ports: list[Manifest]) -> Manifest:
    return {"from": sources, "ports": ports} if ports else {"from": sources}


def _port(number: int, last: int | None = None, protocol: str = "TCP") -> Manifest:
    port: Manifest = {"port": number, "protocol": protocol}
    return port if last is None else {**port, "endPort": last}
