"""HAProxy's rules on traces. A usual request has none unless its caller gives it one, or its replica keeps one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

SAMPLED: Final = "txn.sampled"
"""HAProxy's variable: lots were drawn for whether the request's trace is kept, and it is."""
CONTEXT: Final = "txn.context"
"""HAProxy's variable: trace, caller's span, own span and flags of a request that has a trace before it is answered."""
_TRACEPARENT: Final = (
    "^(00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    "|(?!00|ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?)$"
)


PARENT: Final = "req.fhdr(traceparent),field(3,-)"
"""The caller's span."""
NEW_SPAN: Final = "uuid(),xxh64(3),hex,lower"
"""A span of the gateway's own."""


def trace_acls() -> Iterator[str]:
    """They come before all rules that follow."""
    yield f"  acl traced req.fhdr(traceparent) -m reg {_TRACEPARENT}"
    yield "  acl one_traceparent req.fhdr_cnt(traceparent) eq 1"
    yield "  acl continued var(txn.parent) -m found"
    yield f"  acl sampled var({SAMPLED}) -m found"


def continuing_rules(condition: str) -> Iterator[str]:
    """The caller's trace goes on, with the gateway's span between.

    Args:
        condition: holds only of requests that have `txn.parent`, `PARENT` of one that is valid, and `txn.span`, a `NEW_SPAN`.
    """
    trace, flags = "%[req.fhdr(traceparent),field(2,-)]", "%[req.fhdr(traceparent),field(4,-)]"
    yield f"  http-request set-var-fmt({CONTEXT}) {trace}/%[var(txn.parent)]/%[var(txn.span)]/{flags} if {condition}"
    yield f"  http-request set-header traceparent 00-{trace}-%[var(txn.span)]-{flags} if {condition}"


def beginning_rules(condition: str) -> Iterator[str]:
    """A trace begins, and is kept.

    Args:
        condition: holds only of requests without a trace.
    """
    yield f"  http-request set-var(txn.flags) str(01) if {condition}"
    yield from _identity_rules(condition)


def tracing_rules() -> Iterator[str]:
    """Keep the caller's trace, or begin one where lots say that it is kept; the gateway's span becomes the replica's parent.

    Other requests have no trace: a replica that keeps one after all, since it was slow or failed, begins it.
    """
    yield f"  http-request set-var(txn.parent) {PARENT} if one_traceparent traced"
    yield "  http-request set-var(txn.trace) req.fhdr(traceparent),field(2,-) if continued"
    yield "  http-request set-var(txn.flags) req.fhdr(traceparent),field(4,-) if continued"
    yield "  http-request del-header tracestate unless continued"
    yield "  http-request del-header traceparent unless continued"
    yield f"  http-request set-var({SAMPLED}) bool(1) if !continued {{ rand(1000000),sub(txn.ppm) lt 0 }}"
    yield "  http-request set-var(txn.flags) str(01) if sampled !continued"
    yield from _identity_rules("{ var(txn.flags) -m found }")


def agent_tracing_rules() -> Iterator[str]:
    """What is handed to the agent always has a trace: it may wait there, and the agent says how long."""
    yield "  http-request set-var(txn.flags) str(00) unless { var(txn.flags) -m found }"
    yield from _identity_rules(f"!{{ var({CONTEXT}) -m found }}")


def _identity_rules(condition: str) -> Iterator[str]:
    """Ids for a request whose flags are decided: of the gateway's span always, of the trace unless the caller gave one."""
    yield f"  http-request set-var(txn.id) uuid() if {condition}"
    trace = "%[var(txn.id),xxh64(1),hex,lower]%[var(txn.id),xxh64(2),hex,lower]"
    yield f"  http-request set-var-fmt(txn.trace) {trace} if {condition} !{{ var(txn.trace) -m found }}"
    yield f"  http-request set-var(txn.span) var(txn.id),xxh64(3),hex,lower if {condition}"
    traceparent = "00-%[var(txn.trace)]-%[var(txn.span)]-%[var(txn.flags)]"
    yield f"  http-request set-header traceparent {traceparent} if {condition}"
    context = "%[var(txn.trace)]/%[var(txn.parent)]/%[var(txn.span)]/%[var(txn.flags)]"
    # The last rule: it ends the condition.
    yield f"  http-request set-var-fmt({CONTEXT}) {context} if {condition}"
