"""One request and its answer, with the times at which it passed each stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.telemetry.spans import SpanContext
from penstock_runtime.batching.batcher import Ticket
from penstock_serving.replica.cache.cache import CacheResult, Flight
from penstock_serving.replica.codec.requests import InferRequest

if TYPE_CHECKING:
    from penstock_serving.replica.front.connection import HttpConnection


class Exchange:
    """A request being answered.

    A plain class with slots, made once a request on the hot path. Times are nanoseconds of the monotonic clock, 0 where a
    stage was not reached.
    """

    __slots__ = (
        "body",
        "cache",
        "connection",
        "decoded_ns",
        "encoded_ns",
        "execute_end_ns",
        "execute_start_ns",
        "flight",
        "json_length",
        "keep_alive",
        "kept",
        "method",
        "parent",
        "received_ns",
        "request",
        "response",
        "served_ns",
        "span",
        "status",
        "ticket",
        "traceparent",
        "url",
        "written_ns",
    )

    def __init__(self, connection: HttpConnection, method: bytes, url: bytes, received_ns: int) -> None:
        self.connection = connection
        self.method = method
        self.url = url
        self.received_ns = received_ns
        self.body: bytes | bytearray = b""
        self.json_length: int | None = None
        self.keep_alive = True
        self.traceparent = b""
        """The header as it came. It is parsed only where the trace is kept, into `parent`."""
        self.parent: SpanContext | None = None
        self.request: InferRequest | None = None
        self.ticket: Ticket[Exchange] | None = None
        self.cache: CacheResult | None = None
        """What the prediction cache did; None where it was not asked."""
        self.flight: Flight[Exchange] | None = None
        """The run that this request leads or waits for, where the cache knows of it."""
        self.response: bytes | None = None
        self.status = 0
        self.span: SpanContext | None = None
        self.kept = ""
        """Why the trace is kept: empty while it is not."""
        self.decoded_ns = 0
        self.execute_start_ns = 0
        self.execute_end_ns = 0
        self.served_ns = 0
        """When the cache, or an identical request, gave the answer."""
        self.encoded_ns = 0
        self.written_ns = 0
