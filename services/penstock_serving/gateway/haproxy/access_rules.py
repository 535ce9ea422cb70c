"""HAProxy's rules on who may ask a model and how often. What they look up is `penstock.routing.access.Locks`.

Most requests are decided here, without the agent. What HAProxy cannot know, a token that it has not seen yet, goes to
the agent, with its credential. Everything else that goes on loses its credential and gets the caller's name instead.

Counters (`sc`) of a stream: 0 the client's address, 1 the caller over all models, 2 the caller at one model, 3 the
namespace, 4 what is handed to the agent, 5 the address whose tokens it is to verify, 6 all that came over HTTP/2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from penstock.api.access import Authentication
from penstock.protocol.server import OPENAPI, REPOSITORY_INDEX, TRACE_SETTING
from penstock.routing.access import NEVER, Authenticity, Denial, Grant, Locks
from penstock_serving.gateway.haproxy.grpc_rules import HTTP2, quote_word, reply_words
from penstock_serving.gateway.haproxy.tracing_rules import agent_tracing_rules
from penstock_serving.gateway.settings import GatewaySettings

API_KEY_HEADER: Final = "x-api-key"
CALLER_HEADER: Final = "x-penstock-caller"
"""Who asks, as the gateway found; set by it alone."""
CREDENTIAL_HEADER: Final = "x-penstock-credential"
"""SHA-256, in hex, of what HAProxy takes for the credential of a request that the agent is to verify; set by it alone."""
ADDRESS: Final = "src,ipmask(32,64)"
"""Whom a client's address counts for. Of IPv6, a network of 64 bits is one, since each of its hosts may take any in it."""
SOURCE_HEADER: Final = "x-penstock-source"
"""The address whose token the agent is to verify; set by HAProxy alone."""
STICK_COUNTERS: Final = 7
VERIFY: Final = "verify"
"""The backend of requests whose token the agent must verify."""
_CHALLENGE: Final[Mapping[Denial, str]] = {
    Denial.MISSING: "Bearer",
    Denial.UNKNOWN: 'Bearer error="invalid_token"',
    Denial.OTHER_MODELS: 'Bearer error="insufficient_scope"',
}
PLAIN: Final = "|0|0|*"
"""How the entry of a key ends that has no limit and no end, and opens the whole namespace. See `_grant`."""
ASKS_FOR_KEY: Final = (Authenticity.KEY.value, Authenticity.KEY_OR_JWT.value)
"""How the entry of a guarded model begins. See `render_locks`."""
UNBOUNDED: Final = "|0"
"""How it ends where callers may ask as often as they like."""
NO_PATH: Final = "there is no such path; models are under /v2/models/ or /NAMESPACE/v2/models/"
OWN_PATHS: Final = ("/v2", "/v2/", REPOSITORY_INDEX, TRACE_SETTING, OPENAPI)
"""What of the protocol the agent answers that names no model, but for health."""
_SHORTEN: Final = "  http-request set-path /%[var(txn.rest)] if { var(txn.rest) -m found }"
"""The agent is told the namespace beside the path. Replicas know theirs, and answer at paths with it as well."""
_LIVE, _READY = "/v2/health/live", "/v2/health/ready"
_CALLERS: Final = "callers"
NAMESPACES: Final = "namespaces"
_HANDED_OVER: Final = "handed_over"
_VERIFIED: Final = "verified"
_SOURCES: Final = "sources"


def challenge(refusal: Denial) -> Mapping[str, str]:
    """The headers of a refusal: RFC 6750 section 3, and when to come again."""
    if refusal in _CHALLENGE:
        return {"www-authenticate": _CHALLENGE[refusal]}
    return {"retry-after": "1"}


def render_locks(wanted: Locks) -> dict[str, str]:
    """The map of models: how each is guarded, and how often each caller may ask."""
    return {
        "/".join(model): f"{lock.authentication}|{lock.requests_per_second}" for model, lock in wanted.models.items()
    }


def render_grants(wanted: Locks) -> dict[str, str]:
    """The map of credentials. HAProxy writes hex in capitals."""
    rows = {f"{namespace}/{digest.upper()}": _grant(each) for (namespace, digest), each in wanted.namespaces.items()}
    return rows | {
        f"{namespace}/{model}/{digest.upper()}": _grant(each)
        for (namespace, model, digest), each in wanted.single.items()
    }


def _grant(grant: Grant) -> str:
    until = 0 if grant.until == NEVER else grant.until
    scope = "*" if grant.everywhere else "-"
    return f"{grant.caller}|{grant.requests_per_second}|{until}|{scope}"


def tables() -> Iterator[str]:
    """Where HAProxy counts. Keys are 128 bits of a hash, so that nobody's counter is another's; each table is bounded."""
    for name, kind, size, stored in (
        (_CALLERS, "binary len 16", "100k", "gpc0,gpc0_rate(1s)"),
        (NAMESPACES, "string len 64", "10k", "conn_cur"),
        (_HANDED_OVER, "string len 64", "10k", "gpc0,gpc0_rate(1s)"),
        (_VERIFIED, "string len 64", "10k", "gpc0,gpc0_rate(1s)"),
        (_SOURCES, "binary len 16", "100k", "gpc0,gpc0_rate(1s)"),
        (HTTP2, "integer", "10", "conn_cur"),
    ):
        yield f"backend {name}"
        yield f"  stick-table type {kind} size {size} expire 10s store {stored}"


def lock_rules(settings: GatewaySettings) -> Iterator[str]:
    """`txn.lock` and `txn.model`, from `txn.key` while it names a model without a version."""
    yield f"  http-request set-var(txn.lock) var(txn.key),map_str({settings.layout.locks})"
    yield "  acl locked var(txn.lock) -m found"
    yield "  http-request set-var(txn.model) var(txn.key) if locked"


def access_rules(settings: GatewaySettings) -> Iterator[str]:
    """`txn.caller`, or a refusal. They come last: a request for which no more of them matter leaves them early.

    A request that is guarded and has no caller at the end goes to the backend `verify`.
    """
    yield "  acl routed var(txn.route) -m found"
    yield from _share_rules(settings)
    # What leads nowhere yet goes to the agent with its credential; the agent takes it from what it passes on.
    yield from _strip_credential("routed !locked")
    yield "  http-request allow if !locked"
    yield _refuse(Denial.NOT_YET, "{ var(txn.lock) -m beg ? }")
    yield f"  acl guarded var(txn.lock) -m beg {' '.join(ASKS_FOR_KEY)}"
    yield from _strip_credential("!guarded")
    yield from _key_rules(settings)
    yield from _rate_rules()


def _key_rules(settings: GatewaySettings) -> Iterator[str]:
    """The usual key opens the whole namespace, has no limit and no end: it is through after one look-up."""
    grants = settings.layout.grants
    yield "  http-request set-var(txn.hash) http_auth_bearer,sha2(256),hex if guarded"
    yield "  acl presented var(txn.hash) -m found"
    yield f"  http-request set-var(txn.hash) req.hdr({API_KEY_HEADER}),sha2(256),hex if guarded !presented"
    yield _refuse(Denial.MISSING, "guarded !presented")
    yield f"  http-request set-var(txn.grant) var(txn.ns),concat(/,txn.hash),map_str({grants}) if guarded"
    yield f"  acl plain var(txn.grant) -m end {PLAIN}"
    yield "  http-request set-var(txn.caller) var(txn.grant),field(1,|) if plain"
    yield from _caller_rules("plain")
    yield f"  http-request allow if plain {{ var(txn.lock) -m end {UNBOUNDED} }}"
    yield "  acl everywhere var(txn.grant) -m end |*"
    yield f"  http-request set-var(txn.own) var(txn.model),concat(/,txn.hash),map_str({grants}) if guarded !everywhere"
    yield "  acl valid var(txn.grant) -m found"
    yield "  acl opening var(txn.own) -m found"
    yield "  http-request set-var(txn.until) var(txn.grant),field(3,|) if guarded valid"
    yield "  acl lasting var(txn.until) -m str 0"
    yield "  acl ended date,sub(txn.until) ge 0"
    yield _refuse(Denial.OTHER_MODELS, "guarded valid !everywhere !opening lasting")
    yield _refuse(Denial.OTHER_MODELS, "guarded valid !everywhere !opening !ended")
    yield "  http-request set-var(txn.grant) var(txn.own) if opening"
    yield "  http-request set-var(txn.until) var(txn.grant),field(3,|) if opening"
    yield "  http-request set-var(txn.caller) var(txn.grant),field(1,|) if guarded valid lasting"
    yield "  http-request set-var(txn.caller) var(txn.grant),field(1,|) if guarded valid !ended"
    yield "  acl identified var(txn.caller) -m found"
    yield "  acl verifiable var(txn.lock) -m beg j"
    yield "  acl dotted http_auth_bearer -m sub ."
    yield f"  acl dotted req.hdr({API_KEY_HEADER}) -m sub ."
    yield _refuse(Denial.UNKNOWN, "guarded !identified !verifiable")
    yield _refuse(Denial.UNKNOWN, "guarded !identified !dotted")
    yield f"  http-request set-header {CREDENTIAL_HEADER} %[var(txn.hash)] if guarded !identified"
    yield from _caller_rules("identified !plain")


def _caller_rules(condition: str) -> Iterator[str]:
    """Who asks, in place of how that is known."""
    yield from _strip_credential(condition)
    yield f"  http-request set-header {CALLER_HEADER} %[var(txn.caller)] if {condition}"


def _strip_credential(condition: str) -> Iterator[str]:
    yield f"  http-request del-header authorization if {condition}"
    yield f"  http-request del-header {API_KEY_HEADER} if {condition}"


def _rate_rules() -> Iterator[str]:
    """Only what was let in counts, so that a caller who sends too much still gets what its limit allows.

    A request whose token is still to be verified has no name to count by; HAProxy knows the token a moment later.
    """
    yield "  http-request set-var(txn.rate) var(txn.grant),field(2,|) if identified"
    yield "  acl bounded_caller var(txn.rate) -m int gt 0"
    yield f"  http-request track-sc1 var(txn.ns),concat(/,txn.caller),sha2(256) table {_CALLERS} if bounded_caller"
    yield _refuse(Denial.TOO_OFTEN, "bounded_caller { sc_gpc0_rate(1),sub(txn.rate) ge 0 }")
    yield "  http-request set-var(txn.bound) var(txn.lock),field(2,|)"
    yield "  acl bounded_model var(txn.bound) -m int gt 0"
    yield f"  http-request set-var(txn.who) {ADDRESS} if bounded_model !guarded"
    yield "  http-request set-var(txn.who) var(txn.caller) if bounded_model identified"
    yield "  acl named var(txn.who) -m found"
    yield f"  http-request track-sc2 var(txn.model),concat(|,txn.who),sha2(256) table {_CALLERS} if named"
    yield _refuse(Denial.TOO_OFTEN, "named { sc_gpc0_rate(2),sub(txn.bound) ge 0 }")
    yield "  http-request sc-inc-gpc0(1) if bounded_caller"
    yield "  http-request sc-inc-gpc0(2) if named"


def _share_rules(settings: GatewaySettings) -> Iterator[str]:
    """One namespace's requests, however many, leave connections to the others."""
    limit = settings.requests_per_namespace
    yield f"  http-request track-sc3 var(txn.ns) table {NAMESPACES} if routed"
    yield f"  http-request deny deny_status 429 if {{ sc_conn_cur(3) gt {limit} }}"


def agent_backends(settings: GatewaySettings, agent: str) -> Iterator[str]:
    """What is handed to the agent, in bounded portions: it has one thread for all namespaces."""
    server = f"  server {agent} unix@{settings.layout.agent_socket}"
    routes = settings.layout.map
    yield f"backend {agent}"
    yield _SHORTEN
    yield from agent_tracing_rules()
    yield from _own_path_rules()
    yield f"  http-request set-var(txn.known) var(txn.key),field(1,/,2),map_str({routes})"
    yield "  http-request set-var(txn.bucket) str(+)"
    yield "  http-request set-var(txn.bucket) str(?) if { var(txn.key) -m found }"
    yield "  http-request set-var(txn.bucket) var(txn.ns) if { var(txn.known) -m found }"
    yield from _stranger_rules(settings)
    # Whoever asks whether this gateway is ready has a portion of its own, which nobody else can use up.
    yield f"  http-request set-var(txn.source) {ADDRESS} if ready"
    yield "  http-request set-var(txn.bucket) str(!),concat(,txn.source) if ready"
    yield from _portion_rules(_HANDED_OVER, settings.agent_requests_per_second)
    yield from _closing_rules()
    yield server
    yield f"backend {VERIFY}"
    yield _SHORTEN
    yield from agent_tracing_rules()
    # Who sends these is not known yet: without a part for each address, anyone could use up what a namespace has for its
    # callers.
    yield f"  http-request set-var(txn.source) {ADDRESS}"
    yield f"  http-request set-header {SOURCE_HEADER} %[var(txn.source)]"
    yield f"  http-request track-sc5 var(txn.ns),concat(|,txn.source),sha2(256) table {_SOURCES}"
    yield _limit_rule(5, settings.verifications_per_second_per_source)
    yield "  http-request set-var(txn.bucket) var(txn.ns)"
    yield from _portion_rules(_VERIFIED, settings.agent_requests_per_second)
    yield _count_rule(5)
    yield from _closing_rules()
    yield server


def _stranger_rules(settings: GatewaySettings) -> Iterator[str]:
    """Where models are closed, who has no key of the namespace is told the same of those that there are and of others."""
    if settings.default_authentication is not Authentication.REQUIRED:
        return
    yield "  acl unknown var(txn.bucket) -m str ?"
    yield "  http-request set-var(txn.hash) http_auth_bearer,sha2(256),hex if unknown"
    yield "  acl given var(txn.hash) -m found"
    yield f"  http-request set-var(txn.hash) req.hdr({API_KEY_HEADER}),sha2(256),hex if unknown !given"
    yield _refuse(Denial.MISSING, "unknown !given")
    yield f"  http-request set-var(txn.grant) var(txn.ns),concat(/,txn.hash),map_str({settings.layout.grants}) if unknown"
    yield "  acl member var(txn.grant) -m found"
    yield _refuse(Denial.UNKNOWN, "unknown !member")


def _own_path_rules() -> Iterator[str]:
    """What needs no agent: that the gateway lives, and that there is no such path. No body is read for either."""
    headers = 'hdr cache-control "no-store"'
    yield f"  acl live path {_LIVE} {_LIVE}/"
    yield f"  acl ready path {_READY} {_READY}/"
    yield f"  acl ours path {' '.join(OWN_PATHS)}"
    yield "  acl of_models var(txn.key) -m found"
    yield "  acl encoded path -m sub %"
    answer = quote_word(json.dumps({"live": True}))
    yield f"  http-request return status 200 content-type application/json string {answer} {headers} if live METH_GET"
    headers += " hdr connection close"
    condition = "!of_models !live !ready !ours !encoded"
    yield f"  http-request return status 404 {reply_words(404, NO_PATH)} {headers} if {condition}"


def _closing_rules() -> Iterator[str]:
    """Who was not let in, or asked for what is not there, keeps no connection; nor do refusals tell who gave them."""
    yield "  http-response set-header connection close if { status 401 403 404 405 413 }"
    yield "  acl refused status 401"
    for name in ("server", "date", "traceresponse"):
        yield f"  http-response del-header {name} if refused"
    yield "  http-response set-header content-type application/json if refused"
    yield "  http-response set-header cache-control no-store if refused"


def _portion_rules(table: str, limit: int) -> Iterator[str]:
    yield f"  http-request track-sc4 var(txn.bucket) table {table}"
    yield _limit_rule(4, limit)
    yield _count_rule(4)


def _limit_rule(counter: int, limit: int) -> str:
    return f"  http-request deny deny_status 429 if {{ sc_gpc0_rate({counter}) ge {limit} }}"


def _count_rule(counter: int) -> str:
    """Only what was let in counts."""
    return f"  http-request sc-inc-gpc0({counter})"


def _refuse(refusal: Denial, condition: str) -> str:
    """An answer. Whoever is not let in loses the connection with it, or strangers could hold all there are, idle.

    A caller that is let in, but not so often, keeps it: one that goes on costs no new one each time.
    """
    closing = {"connection": "close"} if refusal in _CHALLENGE else {}
    headers = {"cache-control": "no-store", **closing, **challenge(refusal)}
    fields = " ".join(f"hdr {name} {quote_word(value)}" for name, value in headers.items())
    return f"  http-request return status {refusal.status} {reply_words(refusal.status, refusal.value)} {fields} if {condition}"
