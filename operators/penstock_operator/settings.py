"""The operator's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from penstock.api.access import Authentication
from penstock.api.pool import ServingPoolSpec
from penstock.serving.settings import DEFAULT_MAX_BODY_BYTES
from penstock_operator.optimization.job import JobSettings
from penstock_operator.pool.raypods import PoolSettings


@dataclass(frozen=True)
class Settings:
    """How this operator runs."""

    kubeconfig: Path | None = None
    context: str | None = None
    standalone: Path | None = None
    """File of the embedded store; None: a real Kubernetes API."""
    gateways: tuple[str, ...] = ()
    """Base URLs of the gateway agents' control API, in the clear."""
    gateways_over_tls: tuple[str, ...] = ()
    """Likewise over TLS, by certificates of the platform's own: for replicas, and without the former for this operator, too."""
    gateway_secret: str = ""
    default_authentication: Authentication = Authentication.ANONYMOUS
    """Of deployments whose `spec.access` does not say."""
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    """Of a request: what replicas take."""
    replica_host: str | None = None
    """Where replicas listen; None: their node's address."""
    trusted_keys: tuple[str, ...] = ()
    """Public keys in PEM: an optimized model that a deployment names itself must be signed by one of them."""
    artifact_secret: str | None = None
    """In deployments' namespaces: by which replicas read optimized models."""
    jobs: JobSettings | None = None
    """How models are optimized; None: they are not, and deployments with a profile say so."""
    job_folder: Path | None = None
    """Where Jobs that are processes of this machine keep locks and logs; None: Kubernetes runs Jobs."""
    pools: PoolSettings | None = None
    """How managed pools are made; None: there is no Kubernetes to make them in."""
    default_pool: ServingPoolSpec | None = None
    """Of the pool that a namespace without one gets at its first deployment; None: it gets none."""
    namespaces: tuple[str, ...] = ()
    """What to watch; empty: all namespaces."""
    lease_name: str = "penstock-operator"
    lease_namespace: str = "penstock-system"
    identity: str = ""
    health_host: str = "127.0.0.1"
    """`*`: every address of either family."""
    health_port: int = 8082
    pod_address: str = ""
    """The operator's own in Kubernetes, which has the family that Services have where nothing else is said."""
    workers: int = 8
    log_level: str = "info"
