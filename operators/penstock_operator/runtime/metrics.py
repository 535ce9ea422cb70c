"""The operator's Prometheus metrics."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from penstock.routing.tokens import secret_digest
from penstock.telemetry import names
from penstock_runtime.component_metrics import ComponentMetrics


class ReconcileOutcome(StrEnum):
    """How a reconcile ended."""

    OK = "ok"
    INVALID = "invalid"
    CONFLICT = "conflict"
    UNAVAILABLE = "unavailable"
    BUG = "bug"


_RECONCILES = Counter(names.METRIC_RECONCILES, "Reconciles by kind and outcome.", ["kind", "outcome"])
_RECONCILE_SECONDS = Histogram(
    names.METRIC_RECONCILE_SECONDS, "Seconds that a reconcile took.", ["kind"], buckets=names.SECONDS_BUCKETS
)
_QUEUE_DEPTH = Gauge(names.METRIC_RECONCILE_QUEUE, "Keys that wait, those with a later time included.", ["kind"])
_API_REQUESTS = Counter(
    names.METRIC_API_REQUESTS,
    "Requests to the Kubernetes API by verb, resource and status (0: no answer).",
    ["verb", "resource", "code"],
)

_UNREADABLE = Gauge(
    names.METRIC_UNREADABLE,
    "1 where the API does not let the operator follow a resource in a namespace (empty: in all), or does not serve it.",
    ["namespace", "resource"],
)

_REFUSING = Gauge(
    names.METRIC_REFUSING_GATEWAYS, "Gateways that refuse the acting operator's token: they run by another secret."
)
_SECRET = Gauge(names.METRIC_SECRET_DIGEST, "By which secret of the gateways this one runs.", ["component", "digest"])
_SCALINGS = Counter(
    names.METRIC_SCALINGS, "Changes of a deployment's number of replicas, by rule and direction.", ["rule", "direction"]
)

REGISTRY.register(ComponentMetrics("operator"))


def set_unreadable(namespace: str, resource: str, *, unreadable: bool) -> None:
    """Note whether a resource can be followed."""
    _UNREADABLE.labels(namespace, resource).set(1 if unreadable else 0)


def show_secret(secret: str) -> None:
    """Tell by which secret this operator runs, to be compared with the gateways'."""
    if secret:
        _SECRET.labels("operator", secret_digest(secret)).set(1)


def set_refusing_gateways(count: int) -> None:
    """Note how many gateways run by another secret than this operator."""
    _REFUSING.set(count)


def count_scaling(rule: str, *, is_up: bool) -> None:
    """Count one change of a number of replicas."""
    _SCALINGS.labels(rule, "up" if is_up else "down").inc()


def count_request(verb: str, resource: str, code: int) -> None:
    """Count one request to the Kubernetes API. Subresources are named `resource/subresource`."""
    _API_REQUESTS.labels(verb, resource, str(code)).inc()


def count_reconcile(kind: str, outcome: ReconcileOutcome, seconds: float) -> None:
    """Count one reconcile."""
    _RECONCILES.labels(kind, outcome.value).inc()
    _RECONCILE_SECONDS.labels(kind).observe(seconds)


def set_queue_depth(kind: str, depth: int) -> None:
    """Note how many keys wait."""
    _QUEUE_DEPTH.labels(kind).set(depth)
