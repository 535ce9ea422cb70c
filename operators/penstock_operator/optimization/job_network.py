"""Where an optimization Job's pod may connect to: its NetworkPolicy.

A search runs code that came with the model, so its pod reaches DNS and the artifact store, and nothing reaches it. The
store's address is a setting of the operator, since a NetworkPolicy knows no host names. Without it the pod may connect to
any address on port 443 and on the ports of the endpoints in the Jobs' environment, but for those where clouds hand out
their machines' own credentials. It counts only where the cluster's network enforces it.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from penstock import names
from penstock.api.meta import Manifest
from penstock.api.optimization import OptimizationRun
from penstock_operator.egress import all_peers, block, credential_services
from penstock_operator.optimization.job_settings import Egress, JobSettings

_DNS: Final = 53
_HTTPS: Final = 443
_NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"


def network_policy(run: OptimizationRun, settings: JobSettings) -> Manifest:
    """The policy of one run, which goes with it."""
    metadata = run.metadata
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "labels": {"app.kubernetes.io/managed-by": "penstock", names.RUN_LABEL: metadata.name},
            "ownerReferences": [names.owner_reference(run.api_version, run.kind, metadata)],
        },
        "spec": {
            "podSelector": {"matchLabels": {names.RUN_LABEL: metadata.name}},
            "policyTypes": ["Ingress", "Egress"],
            "egress": [{"ports": [_port(_DNS, "UDP"), _port(_DNS)]}, *_store(settings), *_identity(settings)],
        },
    }


def _identity(settings: JobSettings) -> list[Manifest]:
    return credential_services() if settings.cloud_identity else []


def _store(settings: JobSettings) -> list[Manifest]:
    if settings.egress:
        return [{"to": [_peer(each)], "ports": [_port(each.port)]} for each in settings.egress]
    return [{"to": all_peers(), "ports": [_port(number) for number in _ports(settings)]}]


def _ports(settings: JobSettings) -> list[int]:
    """Those of https and of the URLs in the Jobs' environment, such as AWS_ENDPOINT_URL."""
    found = {_HTTPS}
    for _, value in settings.environment:
        parts = urlsplit(value)
        if parts.scheme in {"http", "https"} and parts.hostname:
            found.add(parts.port or (_HTTPS if parts.scheme == "https" else 80))
    return sorted(found)


def _peer(place: Egress) -> Manifest:
    if place.namespace is not None:
        return {"namespaceSelector": {"matchLabels": {_NAMESPACE_LABEL: place.namespace}}}
    return block(place.cidr or "")


def _port(number: int, protocol: str = "TCP") -> Manifest:
    return {"port": number, "protocol": protocol}
