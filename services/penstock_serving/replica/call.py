"""The seam between a front and the rest: one infer request being answered, whatever protocol it came by."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.errors import Invalid, PenstockError
from penstock.protocol.datatypes import Array
from penstock.protocol.refusals import Refusal
from penstock.routing.shadowing import Shown
from penstock.telemetry.spans import SpanContext
from penstock_runtime.batching.ticket import Ticket
from penstock_serving.replica.cache.cache import CacheResult, Flight
from penstock_serving.replica.codec.requests import InferRequest


class Call:
    """A request being answered, with the times at which it passed each stage.

    A front makes one a request, of a subclass that knows how its protocol writes an answer, and hands it to
    `InferenceService.infer`, or to `fail` where it cannot be read. Either `encode` and `send` are called for it then, or
    `refuse`, once.

    A plain class with slots, since one is made for each request on the hot path. Times are nanoseconds of the monotonic clock,
    0 where a stage was not reached.
    """

    __slots__ = (
        "alone",
        "cache",
        "decoded_ns",
        "encoded_ns",
        "execute_end_ns",
        "execute_start_ns",
        "flight",
        "flow",
        "kept",
        "parent",
        "passed_on",
        "reason",
        "received_ns",
        "request",
        "sampled",
        "served_ns",
        "shown",
        "span",
        "ticket",
        "written_ns",
    )

    def __init__(self, received_ns: int) -> None:
        self.received_ns = received_ns
        self.flow = b""
        """Who asks, as far as the gateway says it: requests of one caller take turns with those of others."""
        self.sampled = False
        """Whether the caller seems to keep its trace; whether it does, `caller` says."""
        self.passed_on = False
        """Whether it came through a gateway of ours."""
        self.shown: Shown | None = None
        """Why another replica of this model shows it, so that no client waits for its answer; None: a client sent it."""
        self.alone: tuple[int, float] | None = None
        """Of one that is shown and came while there was nothing else: requests that had come by then, and the process's CPU time."""
        self.parent: SpanContext | None = None
        """The caller's span, of a trace that is kept."""
        self.request: InferRequest | None = None
        self.ticket: Ticket[Call] | None = None
        self.cache: CacheResult | None = None
        """What the prediction cache did; None where it was not asked."""
        self.flight: Flight[Call] | None = None
        """The run that this request leads or waits for, where the cache knows of it."""
        self.reason = ""
        """Of the refusal, mostly a `Refusal`; empty where it is answered."""
        self.span: SpanContext | None = None
        """The replica's own, of a trace that is kept."""
        self.kept = ""
        """Why the trace is kept: empty while it is not."""
        self.decoded_ns = 0
        self.execute_start_ns = 0
        self.execute_end_ns = 0
        self.served_ns = 0
        """When the cache, or an identical request, gave the answer."""
        self.encoded_ns = 0
        self.written_ns = 0

    # What a front says of its protocol.

    def encode(self, outputs: Mapping[str, Array]) -> None:
        """Make the answer.

        Args:
            outputs: every output of the model by name, this request's rows only.

        Raises:
            Invalid: an output cannot be written in the form that was asked for.
        """
        raise NotImplementedError

    def send(self) -> None:
        """Write what `encode` made; `cache` and `span` are decided."""
        raise NotImplementedError

    def refuse(self, error: PenstockError) -> None:
        """Write an error in its stead; `cache` and `span` are decided."""
        raise NotImplementedError

    def caller(self) -> SpanContext | None:
        """The caller's span. Asked where a trace is kept, or linked to one that is."""
        raise NotImplementedError

    def attributes(self) -> dict[str, str | int | float | bool]:
        """What the request's span says of the protocol, once the answer is written."""
        raise NotImplementedError

    def failure(self) -> str:
        """The same of a failure, in words."""
        raise NotImplementedError


def defect() -> Invalid:
    """What a client is told of a defect of ours."""
    return Invalid(Refusal.ENGINE_FAILED, "internal error; the replica's log has the details")
