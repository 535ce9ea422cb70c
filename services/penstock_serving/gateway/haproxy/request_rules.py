"""What HAProxy does with each request of a client before it asks who may: bounds, routing, tracing."""

from __future__ import annotations

from collections.abc import Iterator

from penstock_serving.gateway.haproxy.access_rules import ADDRESS, lock_rules
from penstock_serving.gateway.settings import GatewaySettings

LEAVING = "proc.leaving"
"""HAProxy's variable that is true while this gateway prepares to end."""
_TOLD = 32
"""Connections above what an address may have, that are told so; HAProxy closes any others without a word."""
_TRACEPARENT = (
    "^(00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    "|(?!00|ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?)$"
)


def client_limit_rules(settings: GatewaySettings) -> Iterator[str]:
    """Connections of one address: those above its bound are told so, and where they are far too many, closed."""
    limit = settings.connections_per_client
    stored = "conn_cur,http_req_rate(1s)" if settings.max_requests_per_second_per_client else "conn_cur"
    yield f"  stick-table type ipv6 size 100k expire 60s store {stored}"
    yield f"  tcp-request connection track-sc0 {ADDRESS}"
    yield f"  tcp-request connection reject if {{ sc_conn_cur(0) gt {limit + _TOLD} }}"
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
    """`txn.ns`, `txn.rest` (the path after the namespace), `txn.key` and, from the map, `txn.route` and `txn.ppm`."""
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


def tracing_rules() -> Iterator[str]:
    """Keep the caller's trace or begin one; the gateway's span becomes the replica's parent."""
    yield "  http-request set-var(txn.id) uuid()"
    yield f"  acl traced req.fhdr(traceparent) -m reg {_TRACEPARENT}"
    yield "  acl one_traceparent req.fhdr_cnt(traceparent) eq 1"
    yield "  http-request set-var(txn.parent) req.fhdr(traceparent),field(3,-) if one_traceparent traced"
    yield "  acl continued var(txn.parent) -m found"
    yield "  http-request set-var(txn.trace) req.fhdr(traceparent),field(2,-) if continued"
    yield "  http-request set-var(txn.flags) req.fhdr(traceparent),field(4,-) if continued"
    trace = "%[var(txn.id),xxh64(1),hex,lower]%[var(txn.id),xxh64(2),hex,lower]"
    yield f"  http-request set-var-fmt(txn.trace) {trace} unless continued"
    yield "  http-request set-var(txn.flags) str(00) unless continued"
    yield "  http-request set-var(txn.flags) str(01) if !continued { rand(1000000),sub(txn.ppm) lt 0 }"
    yield "  http-request del-header tracestate unless continued"
    yield "  http-request set-var(txn.span) var(txn.id),xxh64(3),hex,lower"
    yield "  http-request set-header traceparent 00-%[var(txn.trace)]-%[var(txn.span)]-%[var(txn.flags)]"
    yield "  http-request set-header x-request-start t=%[var(txn.start)]"
