"""The usual request: an inference at a model that has a replica, which anyone may ask or whose caller shows a plain key.

HAProxy decides it by one look-up of its whole path as it came, and one of its key, before any other rule. Every row follows from
the maps that the careful rules read and may be missing at any time: what is not found here, and whatever has something about it,
takes the careful rules, which know nothing of these. So these rules may only ever let pass what those would let pass, to the same
backend, as the same caller; `tests/integration/test_usual_requests.py` compares the two.

A row of a path: a negative number, a bar, the backend, filled up with bars to a fixed place, and what
`penstock.routing.tokens.gateway_word` says. The number's first digit is a kind, by which a rule knows in one comparison whether the
request is its own; the other seven say of how many of a million requests no trace is kept, so that one subtraction from a random
number says whether one is. A row of a plain key: its hash, `@` and the namespace, to who asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.routing.access import Authenticity
from penstock_serving.gateway.haproxy.access_rules import (
    API_KEY_HEADER,
    ASKS_FOR_KEY,
    CALLER_HEADER,
    NAMESPACES,
    PLAIN,
    UNBOUNDED,
)
from penstock_serving.gateway.haproxy.lot_rules import LOTS_BY_CHANCE, STICKY_LOTS, lot_rules
from penstock_serving.gateway.haproxy.tracing_rules import (
    NEW_SPAN,
    PARENT,
    SAMPLED,
    beginning_rules,
    continuing_rules,
    trace_acls,
)
from penstock_serving.gateway.settings import GatewaySettings

OWN_HEADERS: Final = "x-penstock-"
"""How the headers begin that HAProxy alone sets."""
GATEWAY_HEADER: Final = f"{OWN_HEADERS}gateway"
"""`penstock.routing.tokens.gateway_word`: one header for what the agent needs and what replicas do."""
ROW: Final = "txn.usual"
"""HAProxy's variable: the row of a usual request, and of no other once all rules are through."""
WAY: Final = "txn.way"
"""HAProxy's variable: in place of a backend, the lots of a usual request whose path several revisions share."""
_MILLION: Final = 1_000_000
_KIND_BY: Final = 10 * _MILLION
"""A row's number is its kind times this, and how many of a million leave no trace."""
_NUMBER, _BACKEND = 9, 9
"""Characters of a row: sign and digits; the backend with the bars around it."""
_AT_WORD: Final = _NUMBER + _BACKEND
_AT_BACKEND: Final = f"var({ROW}),field(2,|)"
_OPEN, _KEYED, _MAYBE_TOKEN = 1, 2, 3
"""Kinds: anyone may ask; a key is asked for; a key or a token is."""
_SHARED: Final = 3
"""What makes the kind that leads to lots of one that leads to a backend."""
_KINDS: Final = range(_OPEN, _SHARED + _MAYBE_TOKEN + 1)
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
        if kind is None or len(way.backend) > _BACKEND - 2:
            continue
        kind += _SHARED * way.backend.startswith((LOTS_BY_CHANCE, STICKY_LOTS))
        number = kind * _KIND_BY + _MILLION - way.sampled_per_million
        row = f"-{number}{f'|{way.backend}':|<{_BACKEND}}{way.word}"
        for spelling in _spell(namespace, model, version, default_namespace):
            rows[spelling] = row
    for key, grant in grants.items():
        namespace, _, digest = key.partition("/")
        if grant.endswith(PLAIN) and "/" not in digest:
            rows[f"{digest}@{namespace}"] = grant.removesuffix(PLAIN)
    return rows


def _kind(lock: str | None) -> int | None:
    """By the same signs as the careful rules; None: they alone decide."""
    if lock is None:
        return _OPEN
    if not lock.startswith(ASKS_FOR_KEY) or not lock.endswith(UNBOUNDED):
        return None
    return _KEYED if lock.startswith(Authenticity.KEY.value) else _MAYBE_TOKEN


def _spell(namespace: str, model: str, version: list[str], default_namespace: str) -> Iterator[str]:
    """All paths by which an inference may be asked for."""
    named = "/".join(("v2/models", model, *(("versions", *version) if version else ()), _OPERATION))
    yield f"/{namespace}/{named}"
    if namespace == default_namespace:
        yield f"/{named}"


def usual_rules(settings: GatewaySettings) -> Iterator[str]:
    """`txn.usual`, and `allow`, or nothing that the careful rules do not set anew.

    The order matters: a namespace's share is counted before it is compared. A lot that keeps the trace is drawn once of each row that
    leads anywhere, in one comparison with what kind it is: by the rules on traces, what else could be let pass has drawn one. Each
    rule costs all that come to it: so an open model's requests leave before anything about keys, lots of revisions, or traces.
    """
    yield f"  acl in_map var({ROW}) -m found"
    yield f"  acl open {_is_of(_OPEN)}"
    yield f"  acl open_shared {_is_of(_SHARED + _OPEN)}"
    yield f"  acl keyed {_is_of(*(kind + more for kind in (_KEYED, _MAYBE_TOKEN) for more in (0, _SHARED)))}"
    yield f"  acl maybe_token {_is_of(_MAYBE_TOKEN, _SHARED + _MAYBE_TOKEN)}"
    yield f"  acl shared {_is_of(*(kind for kind in _KINDS if kind > _SHARED))}"
    yield f"  acl namespace_full sc_conn_cur(3) gt {settings.requests_per_namespace}"
    yield f"  acl open_unkept {_leaves_no_trace(_OPEN)}"
    yield f"  acl keyed_unkept {_leaves_no_trace(_KEYED, _MAYBE_TOKEN)}"
    yield f"  acl open_shared_unkept {_leaves_no_trace(_SHARED + _OPEN)}"
    yield f"  acl keyed_shared_unkept {_leaves_no_trace(_SHARED + _KEYED, _SHARED + _MAYBE_TOKEN)}"
    for each in _peculiarities(settings):
        yield f"  acl peculiar {each}"
    yield "  acl has_trace req.hdr_cnt(traceparent) gt 0"
    yield "  acl has_trace req.hdr_cnt(tracestate) gt 0"
    yield "  acl has_caller var(txn.caller) -m found"
    yield "  acl has_bearer http_auth_bearer -m found"
    yield "  acl like_token http_auth_bearer -m sub ."
    yield "  acl carried var(txn.span) -m found"
    yield from trace_acls()
    # Only the careful rules count what comes over HTTP/2.
    yield from _deciding_rules(settings, f" if !{{ {_OVER_HTTP2} }}" if settings.http2 else "")


def usual_call_rules(settings: GatewaySettings, marked: str) -> Iterator[str]:
    """The same for calls of gRPC, whose path is known only now.

    Args:
        settings: the gateway's.
        marked: HAProxy's variable that calls have.
    """
    yield from _deciding_rules(settings, f" if {{ var({marked}) -m found }}")


def _is_of(*kinds: int) -> str:
    """A condition: the row is of one of these kinds."""
    return f"var({ROW}) -m beg -- {' '.join(f'-{kind}' for kind in kinds)}"


def _leaves_no_trace(*kinds: int) -> str:
    """A condition: the row is of one of these kinds, and a lot, drawn anew each time that this is asked, keeps no trace."""
    ranges = (f"{kind * _KIND_BY + _MILLION}:{kind * _KIND_BY + 2 * _MILLION - 1}" for kind in kinds)
    return f"rand({_MILLION}),sub({ROW}) -m int {' '.join(ranges)}"


def _deciding_rules(settings: GatewaySettings, condition: str) -> Iterator[str]:
    """A caller's own trace goes on, whatever lots would say."""
    rows = settings.layout.usual
    yield f"  http-request set-var({ROW}) path,map_str({rows}){condition}"
    yield f"  http-request unset-var({ROW}) if peculiar"
    yield f"  http-request track-sc3 var({ROW}),bytes({_AT_WORD}),field(1,/) table {NAMESPACES}"
    yield f"  http-request add-header {GATEWAY_HEADER} %[var({ROW}),bytes({_AT_WORD})] if in_map"
    yield "  http-request allow if open_unkept !namespace_full !has_trace"
    # A token is no plain key: what it opens, and until when, is the careful rules'. They hash it again, and it is long.
    yield f"  http-request unset-var({ROW}) if maybe_token like_token"
    yield from _caller_rules(rows)
    yield "  http-request allow if has_caller keyed_unkept !namespace_full !has_trace"
    yield f"  http-request set-var({WAY}) {_AT_BACKEND} if shared"
    yield "  http-request allow if has_caller keyed_shared_unkept !namespace_full !has_trace"
    yield "  http-request allow if open_shared_unkept !namespace_full !has_trace"
    yield from _trace_rules()
    # Of what was not let pass, the careful rules shall know nothing.
    yield f"  http-request unset-var({ROW}) if in_map"
    yield f"  http-request unset-var({WAY})"
    yield "  http-request unset-var(txn.caller)"


def _caller_rules(rows: Path) -> Iterator[str]:
    """`txn.caller`, by a plain key."""
    yield f"  http-request set-var(txn.ns) var({ROW}),bytes({_AT_WORD}),field(1,/)"
    known = f"sha2(256),hex,concat(@,txn.ns),map_str({rows})"
    yield f"  http-request set-var(txn.caller) http_auth_bearer,{known} if keyed"
    yield f"  http-request set-var(txn.caller) req.hdr({API_KEY_HEADER}),{known} if !has_caller keyed !has_bearer"
    yield f"  http-request add-header {CALLER_HEADER} %[var(txn.caller)] if has_caller"


def _trace_rules() -> Iterator[str]:
    """`allow` with the caller's own trace, if that is valid, or with one that begins here, where nothing but lots kept a request back."""
    let_in = ("open !namespace_full", "open_shared !namespace_full", "has_caller !namespace_full")
    yield f"  http-request set-var(txn.parent) {PARENT} if in_map one_traceparent traced"
    for each in let_in:
        yield f"  http-request set-var(txn.span) {NEW_SPAN} if continued {each}"
    yield from continuing_rules("carried")
    yield "  http-request allow if carried"
    for each in let_in:
        yield f"  http-request set-var({SAMPLED}) bool(1) if {each} !has_trace"
    yield from beginning_rules("sampled")
    yield "  http-request allow if sampled"


def _peculiarities(settings: GatewaySettings) -> Iterator[str]:
    """What the careful rules would look at."""
    yield "stopping"
    yield f"req.body_size gt {settings.max_body_bytes}"
    yield f"sc_conn_cur(0) gt {settings.connections_per_client}"
    if settings.max_requests_per_second_per_client:
        yield f"sc_http_req_rate(0) gt {settings.max_requests_per_second_per_client}"


def way_rules(settings: GatewaySettings) -> Iterator[str]:
    """Where a usual request goes."""
    yield f"  use_backend %[{_AT_BACKEND}] if {{ {_is_of(*(kind for kind in _KINDS if kind <= _SHARED))} }}"
    yield from lot_rules(settings.layout.map, WAY, f"{{ var({WAY}) -m found }}")


def replica_rules() -> Iterator[str]:
    """Of a replica's backend, whichever rules led to it: nothing goes on by which one could ask in a client's name."""
    yield "  http-request del-header authorization"
    yield f"  http-request del-header {API_KEY_HEADER}"
