"""What HAProxy does with a request that is not usual before it asks who may: bounds and routing."""

from __future__ import annotations

from collections.abc import Iterator

from penstock_serving.gateway.haproxy.access_rules import ADDRESS, lock_rules
from penstock_serving.gateway.haproxy.grpc_rules import reply_words
from penstock_serving.gateway.haproxy.lot_rules import LOTS_BY_CHANCE, STICKY_LOTS
from penstock_serving.gateway.settings import GatewaySettings

LEAVING = "proc.leaving"
"""HAProxy's variable that is true while this gateway prepares to end."""
SHARED = "txn.shared"
"""HAProxy's variable: where a request leads whose path several revisions share. Usual ones have none."""
_TOLD = 32
"""Connections above what an address may have, that are told so; HAProxy closes any others without a word."""


def connection_rules(settings: GatewaySettings) -> Iterator[str]:
    """Connections of one address are counted, and where they are far too many, closed."""
    limit = settings.connections_per_client
    stored = "conn_cur,http_req_rate(1s)" if settings.max_requests_per_second_per_client else "conn_cur"
    yield f"  stick-table type ipv6 size 100k expire 60s store {stored}"
    yield f"  tcp-request connection track-sc0 {ADDRESS}"
    yield f"  tcp-request connection reject if {{ sc_conn_cur(0) gt {limit + _TOLD} }}"


def client_limit_rules(settings: GatewaySettings) -> Iterator[str]:
    """Connections of one address above its bound are told so."""
    limit = settings.connections_per_client
    yield f"  http-request deny deny_status 429 if {{ sc_conn_cur(0) gt {limit} }}"


def relay_rules() -> Iterator[str]:
    """A worker that a reload left behind takes one more request of each connection that clients keep.

    Nobody tells it any more which replicas have left or which keys have ended, so it decides nothing about that request.
    """
    yield "  acl outdated stopping"
    yield f"  acl leaving var({LEAVING}) -m bool"
    # The worker that it is handed to logs it.
    yield "  http-request set-log-level silent if outdated !leaving"
    yield "  http-request allow if outdated !leaving"


def routing_rules(settings: GatewaySettings) -> Iterator[str]:
    """`txn.ns`, `txn.rest` (the path after the namespace), `txn.key` and, from the map, `txn.route`, `txn.ppm`, `txn.shared`."""
    yield "  acl short path_beg /v2/"
    yield "  acl short path /v2"
    yield f"  http-request set-var(txn.ns) str({settings.default_namespace}) if short"
    yield "  http-request set-var(txn.rest) path,field(2,/,0) if short"
    yield "  http-request set-var(txn.ns) path,field(2,/) unless short"
    yield "  http-request set-var(txn.rest) path,field(3,/,0) unless short"
    yield "  acl versioned var(txn.rest),field(4,/) -m str versions"
    key = "%[var(txn.ns)]/%[var(txn.rest),field(3,/)]"
    yield f"  http-request set-var-fmt(txn.key) {key} if {{ var(txn.rest) -m beg v2/models/ }}"
    yield from lock_rules(settings)
    yield "  http-request set-var-fmt(txn.key) %[var(txn.key)]/%[var(txn.rest),field(5,/)] if versioned"
    yield f"  http-request set-var(txn.route) var(txn.key),map_str({settings.layout.map})"
    yield "  http-request set-var(txn.ppm) var(txn.route),field(2,|)"
    shared = f"{{ var(txn.route) -m beg {LOTS_BY_CHANCE} {STICKY_LOTS} }}"
    yield f"  http-request set-var({SHARED}) var(txn.route),field(1,|) if {shared}"


def room_rules(settings: GatewaySettings, backend: str) -> Iterator[str]:
    """Refuse inferences that no replica has room for. Each says how much it takes; one that says nothing takes all (HAProxy counts -1).

    When to come again stands in the map by the backend's name, where it is not a second.
    """
    yield f"  acl full be_conn_free({backend}) eq 0"
    busy = reply_words(429, "every replica of the model is busy; try again later")
    yield (
        f"  http-request return status 429 {busy} hdr cache-control no-store "
        f"hdr retry-after %[be_name,map_str({settings.layout.map},1)] if full METH_POST {{ path_end /infer }}"
    )
