"""HAProxy's configuration as a pure function of the settings and of what is to be served."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus

from penstock_serving.gateway.haproxy.access_rules import (
    ADDRESS,
    STICK_COUNTERS,
    VERIFY,
    access_rules,
    agent_backends,
    lock_rules,
    tables,
)
from penstock_serving.gateway.haproxy.plan import AGENT, CHECK, SUCCESSOR, DesiredState
from penstock_serving.gateway.memory import BUFFER_BYTES
from penstock_serving.gateway.settings import GatewaySettings

LEAVING = "proc.leaving"
"""HAProxy's variable that is true while this gateway prepares to end."""
EDITION = "proc.edition"
"""HAProxy's variable that says which configuration a worker runs; no two have the same."""
OWN_HEADERS = "x-penstock-"
"""How the headers begin that HAProxy alone sets."""
GATEWAY_HEADER = f"{OWN_HEADERS}gateway"
"""`penstock.routing.tokens.gateway_word`: one header for what the agent needs and what replicas do."""
_TOLD = 32
"""Connections above what an address may have, that are told so; HAProxy closes any others without a word."""
RELAY = "relay"
"""The backend by which a worker that was replaced hands on what still comes to it."""
ERRORS: Mapping[int, str] = {
    400: "the request is malformed",
    401: "the request is not authenticated",
    403: "the request is not allowed",
    404: "there is no such path",
    405: "the method is not allowed here",
    408: "the request did not arrive in time",
    413: "the request's body is larger than this gateway takes",
    429: "too many requests or connections from this client",
    500: "the gateway failed",
    502: "the replica's answer is malformed",
    503: "no replica could answer",
    504: "the replica did not answer in time",
}
"""What HAProxy itself says, by status."""
_RETRY_AFTER = (429, 503)

_TRACEPARENT = (
    "^(00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    "|(?!00|ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?)$"
)
_FLAGS = "^[0-9a-f]{2}$"
LOG_FORMAT = (
    "%[var(txn.trace)] %[var(txn.parent)] %[var(txn.span)] %[var(txn.flags)] %[var(txn.kept)] "
    "%[var(txn.start)] %[date(0,us)] %[var(txn.key),bytes(0,768)] %ST %B %ts %b/%s %HM %[var(txn.caller)] %HPO"
)
"""One line a request; `penstock_serving.gateway.haproxy.access_log` reads it. A key is a namespace's, a model's and a version's name.

Only the last field, the path, may be so long that it is cut.
"""


def error_file(status: int) -> bytes:
    """HAProxy's own answer, as it goes over the wire, in the protocol's form."""
    body = json.dumps({"error": ERRORS[status]}).encode()
    retry = "retry-after: 1\r\n" if status in _RETRY_AFTER else ""
    # HTTPStatus of Python 3.11 has an older phrase for 413; a phrase has no meaning in HTTP anyway.
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
        f"{retry}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def render_map(entries: Mapping[str, str]) -> str:
    """A map's file."""
    return "".join(f"{key} {value}\n" for key, value in sorted(entries.items()))


def render_config(settings: GatewaySettings, slots: int, desired: DesiredState, edition: str) -> str:
    """The whole configuration, the servers known now among it, so that a start or a reload misses none of them.

    Args:
        settings: the gateway's.
        slots: how many models' backends to allocate.
        desired: what is to be served now.
        edition: the configuration's own name, by which its workers are known.
    """
    sections = (
        _global_section(settings, edition),
        _defaults_section(settings),
        _clients_frontend(settings),
        _own_sections(settings),
    )
    backends = (_backend(settings, desired, slot, kind) for slot in range(slots) for kind in ("m", "w"))
    return "\n".join(line for section in (*sections, *backends) for line in section) + "\n"


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _global_section(settings: GatewaySettings, edition: str) -> Iterator[str]:
    yield "global"
    # The agent and the exporter have connections of their own beside the clients'.
    yield f"  maxconn {settings.max_connections + 64}"
    yield f"  stats socket unix@{settings.layout.runtime_socket} mode 600 level admin expose-fd listeners"
    yield "  stats timeout 30s"
    # Else two gateways of one user could listen on one port, and each would get half of the other's clients.
    yield "  noreuseport"
    yield f"  nbthread {settings.threads}"
    yield f"  tune.stick-counters {STICK_COUNTERS}"
    # A retry needs the whole request in one buffer.
    yield f"  tune.bufsize {BUFFER_BYTES}"
    yield f"  hard-stop-after {_milliseconds(settings.request_timeout_seconds)}"
    yield f"  set-var {LEAVING} bool(0)"
    yield f"  set-var {EDITION} str({edition})"


def _defaults_section(settings: GatewaySettings) -> Iterator[str]:
    yield "defaults"
    yield "  mode http"
    yield "  timeout connect 1s"
    yield f"  timeout http-request {_milliseconds(settings.header_timeout_seconds)}"
    yield f"  timeout http-keep-alive {_milliseconds(settings.client_timeout_seconds)}"
    yield f"  timeout client {_milliseconds(settings.client_timeout_seconds)}"
    yield "  timeout client-fin 5s"
    yield f"  timeout server {_milliseconds(settings.request_timeout_seconds)}"
    yield f"  timeout queue {_milliseconds(settings.header_timeout_seconds)}"
    yield "  retries 5"
    yield "  option redispatch 1"
    yield "  retry-on conn-failure empty-response"
    yield "  option abortonclose"
    yield "  option idle-close-on-response"
    yield "  option dontlognull"
    yield "  http-reuse always"
    for status in ERRORS:
        yield f"  errorfile {status} {settings.layout.error_file(status)}"


def _clients_frontend(settings: GatewaySettings) -> Iterator[str]:
    yield "frontend clients"
    yield f"  bind {settings.host}:{settings.port}"
    yield f"  bind unix@{settings.layout.relay_socket} mode 600 accept-proxy"
    yield f"  maxconn {settings.max_connections}"
    if not settings.http2:
        yield "  option disable-h2-upgrade"
    yield "  log stdout len 4096 format raw local0 info"
    yield f'  log-format "{LOG_FORMAT}"'
    yield from _client_limit_rules(settings)
    yield from _relay_rules()
    yield "  http-request set-var(txn.start) date(0,us)"
    yield from _routing_rules(settings)
    yield from _tracing_rules()
    # Nobody else speaks in the gateway's name.
    yield f"  http-request del-header {OWN_HEADERS} -m beg"
    yield f"  http-request set-header {GATEWAY_HEADER} %[var(txn.ns)]/%[var(txn.route),field(3,|)]"
    yield "  http-request set-path /%[var(txn.rest)] unless short"
    yield f"  http-request deny deny_status 413 if {{ req.body_size gt {settings.max_body_bytes} }}"
    if settings.max_requests_per_second_per_client:
        limit = settings.max_requests_per_second_per_client
        yield f"  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {limit} }}"
    yield from access_rules(settings)
    # A replica may say anything there, and it stands in the log.
    yield f"  acl told res.hdr(traceresponse),field(4,-) -m reg {_FLAGS}"
    yield "  http-response set-var(txn.kept) res.hdr(traceresponse),field(4,-) if told"
    yield "  http-after-response set-header connection close if leaving"
    yield f"  use_backend {RELAY} if outdated !leaving"
    yield f"  use_backend {VERIFY} if guarded !identified"
    yield "  use_backend %[var(txn.route),field(1,|)]"
    yield f"  default_backend {AGENT}"


def _client_limit_rules(settings: GatewaySettings) -> Iterator[str]:
    """Connections of one address: those above its bound are told so, and where they are far too many, closed."""
    limit = settings.connections_per_client
    stored = "conn_cur,http_req_rate(1s)" if settings.max_requests_per_second_per_client else "conn_cur"
    yield f"  stick-table type ipv6 size 100k expire 60s store {stored}"
    yield f"  tcp-request connection track-sc0 {ADDRESS}"
    yield f"  tcp-request connection reject if {{ sc_conn_cur(0) gt {limit + _TOLD} }}"
    yield f"  http-request deny deny_status 429 if {{ sc_conn_cur(0) gt {limit} }}"


def _relay_rules() -> Iterator[str]:
    """A worker that a reload left behind takes one more request of each connection that clients keep.

    Nobody tells it any more which replicas have left or which keys have ended, so it decides nothing about that request.
    """
    yield "  acl outdated stopping"
    yield f"  acl leaving var({LEAVING}) -m bool"
    # The worker that it is handed to logs it.
    yield "  http-request set-log-level silent if outdated !leaving"
    yield "  http-request allow if outdated !leaving"


def _routing_rules(settings: GatewaySettings) -> Iterator[str]:
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


def _tracing_rules() -> Iterator[str]:
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


def _own_sections(settings: GatewaySettings) -> Iterator[str]:
    yield "frontend exporter"
    yield f"  bind unix@{settings.layout.metrics_socket} mode 600"
    yield "  http-request use-service prometheus-exporter if { path /metrics }"
    yield "  http-request deny deny_status 404"
    yield f"backend {RELAY}"
    yield f"  server {SUCCESSOR} unix@{settings.layout.relay_socket} send-proxy-v2"
    yield from agent_backends(settings, AGENT)
    yield from tables()


def _backend(settings: GatewaySettings, desired: DesiredState, slot: int, kind: str) -> Iterator[str]:
    name = f"{kind}{slot}"
    yield f"backend {name}"
    # `leastconn` gives each request to the least busy, but keeps no shares when idle; `random(2)` keeps both.
    yield f"  balance {'leastconn' if kind == 'm' else 'random(2)'}"
    # Not in the frontend, which would wait for a body before it refused its size.
    yield "  option http-buffer-request"
    yield f"  server {AGENT} unix@{settings.layout.agent_socket} backup"
    for server, wanted in sorted(desired.backends.get(name, {}).items()):
        yield f"  server {server} {wanted.address} weight {wanted.weight} {CHECK}"
