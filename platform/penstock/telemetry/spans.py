"""W3C trace context, and the plain record from which an exporter builds an OpenTelemetry span."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

_TRACEPARENT = re.compile(r"^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$")


@dataclass(frozen=True, slots=True)
class SpanContext:
    """A span's identity: 128-bit trace id, 64-bit span id, and whether the trace is sampled."""

    trace_id: int
    span_id: int
    sampled: bool

    def traceparent(self) -> str:
        """The W3C `traceparent` header value."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


class SpanKind(StrEnum):
    """OpenTelemetry span kinds in use."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """A finished span. Times are nanoseconds since the Unix epoch."""

    name: str
    context: SpanContext
    parent: SpanContext | None
    start_ns: int
    end_ns: int
    kind: SpanKind = SpanKind.INTERNAL
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    links: Sequence[SpanContext] = ()
    error: str | None = None


def parse_traceparent(header: str) -> SpanContext | None:
    """The caller's span, or None where the header is malformed (W3C: then a new trace begins)."""
    match = _TRACEPARENT.match(header.strip())
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    trace_id, span_id = int(match[2], 16), int(match[3], 16)
    if trace_id == 0 or span_id == 0:
        return None
    return SpanContext(trace_id, span_id, bool(int(match[4], 16) & 1))


def gateway_context(replica: SpanContext) -> SpanContext:
    """The gateway's span of a request that came without a trace, of which the replica began one: both know it without a word.

    Args:
        replica: the replica's own span.
    """
    digest = hashlib.sha256(b"%032x-%016x" % (replica.trace_id, replica.span_id)).digest()
    return SpanContext(replica.trace_id, int.from_bytes(digest[:8]) or 1, replica.sampled)


def new_trace_id() -> int:
    """A random, non-zero 128-bit id."""
    return random.getrandbits(128) or 1


def new_span_id() -> int:
    """A random, non-zero 64-bit id."""
    return random.getrandbits(64) or 1
