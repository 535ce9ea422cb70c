"""The usual request: an inference at a model that has a replica, which anyone may ask or whose caller shows a plain key.

HAProxy decides it by one look-up of its whole path as it came, and one of its key, before any other rule. Every row follows from
the maps that the careful rules read and may be missing at any time: what is not found here, and whatever has something about it,
takes the careful rules, which know nothing of these. So these rules may only ever let pass what those would let pass, to the same
backend, as the same caller; `tests/integration/test_usual_requests.py` compares the two.

A row of a path: seven digits of how many of a million requests leave a trace, then `o` (open) or `k` (a key is asked for), the
backend filled up to seven characters, and what `penstock.routing.tokens.gateway_word` says. They have fixed places, since HAProxy
finds a place faster than a separator. A row of a plain key: its hash, `@` and the namespace, to who asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock_serving.gateway.haproxy.access_rules import (
    API_KEY_HEADER,
    ASKS_FOR_KEY,
    CALLER_HEADER,
    NAMESPACES,
    PLAIN,
    UNBOUNDED,
)
from penstock_serving.gateway.haproxy.tracing_rules import NEW_SPAN, PARENT, SAMPLED, continuing_rules, trace_acls
from penstock_serving.gateway.settings import GatewaySettings

OWN_HEADERS: Final = "x-penstock-"
"""How the headers begin that HAProxy alone sets."""
GATEWAY_HEADER: Final = f"{OWN_HEADERS}gateway"
"""`penstock.routing.tokens.gateway_word`: one header for what the agent needs and what replicas do."""
WAY: Final = "txn.way"
"""HAProxy's variable: the backend of a usual request."""
_PER_MILLION, _KIND, _BACKEND = 7, 1, 7
"""Characters of a row."""
_AT_WORD: Final = _PER_MILLION + _KIND + _BACKEND
_AT_BACKEND: Final = f"var(txn.usual),bytes({_PER_MILLION + _KIND},{_BACKEND}),field(1,|)"
_OPEN, _KEYED = "o", "k"
_OVER_HTTP2: Final = "fc_http_major 2"
_OPERATION: Final = "infer"
"""Metadata and readiness are asked too seldom to have rows."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where the requests of one path of the table go: `namespace/model`, or with a version."""

    backend: str
    sampled_per_million: int
    word: str
    """What replicas are shown."""


def usual_rows(
    ways: Mapping[str, Way], locks: Mapping[str, str], grants: Mapping[str, str], default_namespace: str
) -> dict[str, str]:
    """The map of usual requests.

    Args:
        ways: of paths of the table that lead to replicas.
        locks: the rows by which the careful rules know how models are guarded.
        grants: those by which they know what credentials open.
        default_namespace: whose models have a path without a namespace, too.
    """
    rows = {}
    for path, way in ways.items():
        namespace, model, *version = path.split("/")
        kind = _kind(locks.get(f"{namespace}/{model}"))
        if kind is None or len(way.backend) > _BACKEND:
            continue
        row = f"{way.sampled_per_million:07d}{kind}{way.backend:|<7}{way.word}"
        for spelling in _spell(namespace, model, version, default_namespace):
            rows[spelling] = row
    for key, grant in grants.items():
        namespace, _, digest = key.partition("/")
        if grant.endswith(PLAIN) and "/" not in digest:
            rows[f"{digest}@{namespace}"] = grant.removesuffix(PLAIN)
    return rows


def _kind(lock: str | None) -> str | None:
    """By the same signs as the careful rules; None: they alone decide."""
    if lock is None:
        return _OPEN
    return _KEYED if lock.startswith(ASKS_FOR_KEY) and lock.endswith(UNBOUNDED) else None


def _spell(namespace: str, model: str, version: list[str], default_namespace: str) -> Iterator[str]:
    """All paths by which an inference may be asked for."""
    named = "/".join(("v2/models", model, *(("versions", *version) if version else ()), _OPERATION))
    yield f"/{namespace}/{named}"
    if namespace == default_namespace:
        yield f"/{named}"


def usual_rules(settings: GatewaySettings) -> Iterator[str]:
    """`txn.way`, and `allow`, or nothing that the careful rules do not set anew.

    The order matters: the path is looked up before anything changes it (the backend cuts the namespace off), a namespace's
    share is counted before it is compared, and lots are drawn last, since who draws one is to keep the trace.
    """
    yield "  acl in_map var(txn.usual) -m found"
    yield f"  acl usual var({WAY}) -m found"
    yield f"  acl keyless var(txn.usual),bytes({_PER_MILLION},{_KIND}) -m str {_OPEN}"
    yield f"  acl namespace_full sc_conn_cur(3) gt {settings.requests_per_namespace}"
    # The row begins with the number.
    yield "  acl drawn rand(1000000),sub(txn.usual) lt 0"
    yield "  acl has_caller var(txn.caller) -m found"
    yield "  acl has_bearer http_auth_bearer -m found"
    yield "  acl like_token http_auth_bearer -m sub ."
    yield "  acl carried var(txn.span) -m found"
    yield from trace_acls()
    over_http2 = [f"!{{ {_OVER_HTTP2} }}"] if settings.http2 else []  # only the careful rules count these
    yield from _deciding_rules(settings, over_http2)


def usual_call_rules(settings: GatewaySettings, marked: str) -> Iterator[str]:
    """The same for calls of gRPC, whose path is known only now.

    Args:
        settings: the gateway's.
        marked: HAProxy's variable that calls have.
    """
    yield from _deciding_rules(settings, [f"{{ var({marked}) -m found }}"])


def _deciding_rules(settings: GatewaySettings, conditions: list[str]) -> Iterator[str]:
    """A caller's own trace goes on, whatever lots would say."""
    rows = settings.layout.usual
    only = f" if {' '.join(conditions)}" if conditions else ""
    plain = " ".join(("in_map", *(f"!{{ {each} }}" for each in _peculiarities(settings)), *conditions))
    untraced = "!{ req.hdr_cnt(traceparent) gt 0 } !{ req.hdr_cnt(tracestate) gt 0 }"
    traced = " ".join(("!usual in_map", *conditions, "!like_token one_traceparent traced"))
    yield f"  http-request set-var(txn.usual) path,map_str({rows}){only}"
    yield f"  http-request set-var({WAY}) {_AT_BACKEND} if {plain} {untraced}"
    yield f"  http-request set-var(txn.parent) {PARENT} if {traced}"
    yield f"  http-request set-var({WAY}) {_AT_BACKEND} if continued {plain}"
    yield from _share_rules()
    yield "  http-request allow if usual keyless !namespace_full !continued !drawn"
    # No plain key: what it opens, and until when, is the careful rules'. They hash it again, and it is long.
    yield f"  http-request unset-var({WAY}) if usual !keyless like_token"
    yield from _caller_rules(rows)
    yield "  http-request allow if has_caller !namespace_full !continued !drawn"
    for decided in ("usual keyless !namespace_full", "has_caller !namespace_full"):
        yield f"  http-request set-var(txn.span) {NEW_SPAN} if continued {decided}"
    yield from continuing_rules("carried")
    yield "  http-request allow if carried"
    yield f"  http-request set-var({SAMPLED}) bool(1) if usual keyless !namespace_full"
    yield f"  http-request set-var({SAMPLED}) bool(1) if has_caller !namespace_full"
    # Of what was not let pass, the careful rules shall know nothing.
    yield f"  http-request unset-var({WAY}) if usual"
    yield "  http-request unset-var(txn.caller)"


def _share_rules() -> Iterator[str]:
    """`txn.ns`, whose requests are counted, and what replicas are shown."""
    yield f"  http-request set-var(txn.ns) var(txn.usual),bytes({_AT_WORD}),field(1,/) if usual"
    yield f"  http-request track-sc3 var(txn.ns) table {NAMESPACES} if usual"
    yield f"  http-request add-header {GATEWAY_HEADER} %[var(txn.usual),bytes({_AT_WORD})] if usual"


def _caller_rules(rows: Path) -> Iterator[str]:
    """`txn.caller`, by a plain key."""
    known = f"sha2(256),hex,concat(@,txn.ns),map_str({rows})"
    yield f"  http-request set-var(txn.caller) http_auth_bearer,{known} if usual !keyless"
    other = f"req.hdr({API_KEY_HEADER}),{known}"
    yield f"  http-request set-var(txn.caller) {other} if usual !keyless !has_caller !has_bearer"
    yield f"  http-request add-header {CALLER_HEADER} %[var(txn.caller)] if has_caller"


def _peculiarities(settings: GatewaySettings) -> Iterator[str]:
    """What the careful rules would look at."""
    yield "stopping"
    yield f"req.body_size gt {settings.max_body_bytes}"
    yield f"sc_conn_cur(0) gt {settings.connections_per_client}"
    if settings.max_requests_per_second_per_client:
        yield f"sc_http_req_rate(0) gt {settings.max_requests_per_second_per_client}"


def replica_rules() -> Iterator[str]:
    """Of a replica's backend, whichever rules led to it: a path from `/v2` on, and nothing by which one could ask in a client's name."""
    yield "  http-request set-path /%[path,field(3,/,0)] unless { path_beg /v2/ }"
    yield "  http-request del-header authorization"
    yield f"  http-request del-header {API_KEY_HEADER}"
