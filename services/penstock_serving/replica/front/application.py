"""What a connection hands its requests to."""

from __future__ import annotations

from typing import Protocol

from penstock.errors import Invalid
from penstock.protocol.refusals import Deferred
from penstock_serving.replica.front.exchange import HttpExchange, Responder


class HttpApplication(Protocol):
    """What answers requests."""

    draining: bool
    """Whether each request is the last of its connection."""

    def refuse_early(self, exchange: HttpExchange) -> Deferred | None:
        """Why a request is refused of which only the headers are there; None: it is not, as far as they tell."""

    def handle(self, exchange: HttpExchange) -> None:
        """A request is complete. Call `exchange.connection.respond` for it, now or later."""

    def refuse(self, exchange: HttpExchange, error: Invalid) -> None:
        """A request is wrong as HTTP, and the last of its connection. Respond with the error."""

    def cancel(self, exchange: HttpExchange) -> None:
        """The client went before its answer."""


class RpcApplication(HttpApplication, Protocol):
    """What answers gRPC's calls."""

    def exchange(self, connection: Responder, method: bytes, url: bytes, received_ns: int) -> HttpExchange:
        """A call begins."""
