"""HAProxy's configuration as a pure function of the settings and of what is to be served."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from penstock.addresses import is_ipv6, join_port
from penstock_serving.gateway.haproxy.access_rules import STICK_COUNTERS, VERIFY, access_rules, agent_backends, tables
from penstock_serving.gateway.haproxy.error_files import ERRORS, error_reply
from penstock_serving.gateway.haproxy.grpc_rules import (
    CALL,
    answer_rules,
    buffering_rules,
    call_header_rules,
    call_rules,
    http2_rules,
    mark_rules,
)
from penstock_serving.gateway.haproxy.lot_rules import lot_rules
from penstock_serving.gateway.haproxy.plan import AGENT, AUTHORITY, SLOT, SUCCESSOR, DesiredState, verify_by
from penstock_serving.gateway.haproxy.request_rules import (
    LEAVING,
    SHARED,
    client_limit_rules,
    connection_rules,
    relay_rules,
    room_rules,
    routing_rules,
)
from penstock_serving.gateway.haproxy.tracing_rules import CONTEXT, tracing_rules
from penstock_serving.gateway.haproxy.usual import (
    GATEWAY_HEADER,
    OWN_HEADERS,
    replica_rules,
    usual_call_rules,
    usual_rules,
    way_rules,
)
from penstock_serving.gateway.memory import BUFFER_BYTES, HOT_BYTES
from penstock_serving.gateway.settings import GatewaySettings

EDITION = "proc.edition"
"""HAProxy's variable that says which configuration a worker runs; no two have the same."""
RELAY = "relay"
"""The backend by which a worker that was replaced hands on what still comes to it."""
_SHORT_PATH = "txn.path"
"""HAProxy's variable: the path without the prefix of all paths, where there is one."""
_TRACERESPONSE = "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
LOG_FORMAT = (
    f"%[var(txn.start)] %[date(0,us),sub(txn.start)] %ST %[var(txn.told)] %[var({CONTEXT})] %[var(txn.kept)] %[var(txn.key),bytes(0,768)] "
    "%b/%s %ts %HM %[var(txn.caller)] %HPO"
)
"""One line a request; `penstock_serving.gateway.haproxy.access_log` reads it. A key is a namespace's, a model's and a version's name.
A usual request has neither a context nor a key: its path says what the key would. Times, in microseconds, come first, so that what
follows is the same for most requests of a model.
A call of gRPC always has 200; what became of it, if not that, is told beside it.

Only the last field, the path, may be so long that it is cut.
"""


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
    backends = (_backend(settings, desired, slot) for slot in range(slots))
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
    # Else some of the buffers of many connections are given back to the system, and asked for again, with each request.
    yield f"  tune.memory.hot-size {HOT_BYTES}"
    # Shares of its files, two for each client. As soon as the lower one is in use, no connection to a replica is kept, and each
    # request opens one: by default idle clients get there, which alone may take half.
    yield "  tune.pool-low-fd-ratio 70"
    yield "  tune.pool-high-fd-ratio 75"
    if settings.tls_certificate is not None:
        # Mozilla's intermediate recommendation: each session has keys that nobody can compute later. Tickets would have
        # them depend on one key for as long as a worker lives.
        yield "  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets"
        yield "  ssl-default-bind-ciphers ECDHE+AESGCM:ECDHE+CHACHA20"
    if settings.control_tls_port:
        yield "  ssl-default-server-options ssl-min-ver TLSv1.3"
    yield f"  hard-stop-after {_milliseconds(settings.request_timeout_seconds)}"
    yield f"  set-var {LEAVING} bool(0)"
    yield f"  set-var {EDITION} str({edition})"


def _defaults_section(settings: GatewaySettings) -> Iterator[str]:
    yield "defaults"
    yield "  mode http"
    # With TLS it includes the handshake.
    yield f"  timeout connect {3 if settings.control_tls_port else 1}s"
    yield f"  timeout http-request {_milliseconds(settings.header_timeout_seconds)}"
    yield f"  timeout http-keep-alive {_milliseconds(settings.keep_alive_seconds)}"
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
        yield f"  http-error status {status} {error_reply(status, settings.max_body_bytes)}"


def _clients_frontend(settings: GatewaySettings) -> Iterator[str]:
    yield "frontend clients"
    for address in settings.client_addresses:
        # One socket for both families would show IPv4 clients as addresses of one IPv6 network, by which they are counted.
        family = " v6only" if is_ipv6(address) else ""
        yield f"  bind {join_port(address, settings.port)}{family}{_tls(settings)}"
    yield f"  bind unix@{settings.layout.relay_socket} name {RELAY} mode 600 accept-proxy"
    yield f"  maxconn {settings.max_connections}"
    if not settings.http2:
        yield "  option disable-h2-upgrade"
    yield "  log stdout len 4096 format raw local0 info"
    # The log says which path was looked up.
    shown = LOG_FORMAT.replace("%HPO", f"%[var({_SHORT_PATH})]") if settings.path_prefix else LOG_FORMAT
    yield f'  log-format "{shown}"'
    yield from connection_rules(settings)
    yield "  http-request set-var(txn.start) date(0,us)"
    # Nobody else speaks in the gateway's name.
    yield f"  http-request del-header {OWN_HEADERS} -m beg"
    yield from _prefix_rules(settings)
    # Here the usual request leaves the rules.
    yield from usual_rules(settings)
    yield from mark_rules()
    yield from client_limit_rules(settings)
    yield from relay_rules()
    yield from http2_rules(settings)
    yield from call_rules(settings)
    yield from call_header_rules()
    yield from usual_call_rules(settings, CALL)
    yield from routing_rules(settings)
    yield from tracing_rules()
    # Anew, since a request that was not usual after all may have got some.
    yield f"  http-request del-header {OWN_HEADERS} -m beg"
    yield f"  http-request set-header {GATEWAY_HEADER} %[var(txn.ns)]/%[var(txn.route),field(3,|)]"
    yield from call_header_rules()
    yield f"  http-request deny deny_status 413 if {{ req.body_size gt {settings.max_body_bytes} }}"
    if settings.max_requests_per_second_per_client:
        limit = settings.max_requests_per_second_per_client
        yield f"  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {limit} }}"
    yield from access_rules(settings)
    # A replica may say anything there, and it stands in the log.
    yield f"  acl told res.hdr(traceresponse) -m reg {_TRACERESPONSE}"
    yield "  http-response set-var(txn.kept) res.hdr(traceresponse) if told"
    yield "  http-after-response set-header connection close if leaving"
    yield from answer_rules()
    yield from way_rules(settings)
    yield f"  use_backend {RELAY} if outdated !leaving"
    yield f"  use_backend {VERIFY} if guarded !identified"
    yield from lot_rules(settings.layout.map, SHARED, "!in_map")
    yield "  use_backend %[var(txn.route),field(1,|)]"
    yield f"  default_backend {AGENT}"


def _prefix_rules(settings: GatewaySettings) -> Iterator[str]:
    """Take what clients put before paths off, once: a worker that was replaced hands on paths from which it is taken already."""
    if not settings.path_prefix:
        return
    condition = f"{{ path_beg {settings.path_prefix}/ }} !{{ so_name {RELAY} }}"
    yield f"  http-request set-path %[path,bytes({len(settings.path_prefix)})] if {condition}"
    yield f"  http-request set-var({_SHORT_PATH}) path"


def _tls(settings: GatewaySettings) -> str:
    """What makes clients speak TLS; empty where they need not."""
    if settings.tls_certificate is None:
        return ""
    protocols = "h2,http/1.1" if settings.http2 else "http/1.1"
    told = f" ssl crt {settings.layout.certificate} alpn {protocols}"
    if settings.tls_client_ca_file is not None:
        told += f" ca-file {settings.tls_client_ca_file} verify required"
    return told


def _own_sections(settings: GatewaySettings) -> Iterator[str]:
    yield "frontend exporter"
    yield f"  bind unix@{settings.layout.metrics_socket} mode 600"
    yield "  http-request use-service prometheus-exporter if { path /metrics }"
    yield "  http-request deny deny_status 404"
    yield f"backend {RELAY}"
    yield f"  server {SUCCESSOR} unix@{settings.layout.relay_socket} send-proxy-v2"
    if settings.control_tls_port:
        # A server that is added at run time can name only such files as the configuration names.
        yield f"backend {AUTHORITY}"
        yield f"  server {AUTHORITY} 127.0.0.1:1 disabled {verify_by(str(settings.layout.authority))}"
    yield from agent_backends(settings, AGENT)
    yield from tables()


def _backend(settings: GatewaySettings, desired: DesiredState, slot: int) -> Iterator[str]:
    name = f"{SLOT}{slot}"
    yield f"backend {name}"
    yield "  balance leastconn"
    # Not in the frontend, which would wait for a body before it refused its size.
    yield from buffering_rules(settings)
    yield from room_rules(settings, name)
    yield from replica_rules()
    yield f"  server {AGENT} unix@{settings.layout.agent_socket} backup"
    for server, wanted in sorted(desired.backends.get(name, {}).items()):
        yield f"  server {server} {wanted.settings}"
