"""The Open Inference Protocol v2 over HTTP, for the one model that the replica serves: its paths and documents."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from penstock.addresses import join_port
from penstock.errors import Invalid
from penstock.protocol.openapi.document import ServedModel, openapi_document
from penstock.protocol.refusals import Deferred, MethodNotAllowed, Refusal, not_found
from penstock.protocol.repository import read_index_request
from penstock.protocol.server import OPENAPI, REPOSITORY_INDEX, TRACE_SETTING, trace_change_refused
from penstock.serving.control import Reconfigure, ReplicaSettings
from penstock_serving.replica.codec import responses
from penstock_serving.replica.codec.documents import RequestDecoder
from penstock_serving.replica.documents import LEAVING, ReplicaDocuments
from penstock_serving.replica.front.answering import ServiceFront
from penstock_serving.replica.front.application import RpcApplication
from penstock_serving.replica.front.codings import decompress
from penstock_serving.replica.front.connection import HttpConnection
from penstock_serving.replica.front.exchange import JSON, HttpExchange
from penstock_serving.replica.front.guard import GatewayGuard
from penstock_serving.replica.front.limits import ConnectionLimits
from penstock_serving.replica.model.loading import LoadedModel
from penstock_serving.replica.service import InferenceService

_TEXT: Final = b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"

_ABSOLUTE: Final = (b"http://", b"https://")
_HANDSHAKE_SECONDS: Final = 10.0

Route = Callable[[HttpExchange], None]


class HttpFront(ServiceFront):
    """Hands requests on to the service. All methods are called on the event loop.

    Args:
        settings: the replica's.
        model: what is served.
        service: answers.
        documents: what is told of the replica and its model; None: these are written here.
        rpc: takes the calls of gRPC that come to the same socket; None: nobody does.
    """

    def __init__(
        self,
        settings: ReplicaSettings,
        model: LoadedModel,
        service: InferenceService,
        documents: ReplicaDocuments | None = None,
        rpc: RpcApplication | None = None,
    ) -> None:
        self._rpc = rpc
        self._settings = settings
        self._signature = model.signature
        self._documents = documents or ReplicaDocuments(settings, model, service)
        super().__init__(service)
        self._has_room = service.executor.batcher.has_room
        self.guard = GatewayGuard(settings.namespace, settings.registration_token)
        self._limits = ConnectionLimits(settings.max_body_bytes, self.guard)
        self.connections: set[HttpConnection] = set()
        self.draining = False
        self._decoder = RequestDecoder(model.signature, model.trial.joining)
        self._encoder = responses.ResponseEncoder(settings.model, settings.version)
        self._gets, self._posts = self._routes()
        self._infers = frozenset(path for path, route in self._posts.items() if route == self._infer)
        self._tables = {b"GET": self._gets, b"HEAD": self._gets, b"POST": self._posts}

    async def listen(self, host: str, port: int, context: ssl.SSLContext | None = None) -> tuple[asyncio.Server, str]:
        """Start listening, for TLS alone where there is a context. Returns the server and its `host:port`.

        Raises:
            OSError: the address cannot be had.
        """
        listener = await asyncio.get_running_loop().create_server(
            self.connection,
            host,
            port,
            backlog=1024,
            ssl=context,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if context is not None else None,
        )
        bound = listener.sockets[0].getsockname()[1]
        return listener, join_port(host, bound)

    def connection(self) -> HttpConnection:
        """A protocol for a new client; the factory that the event loop's server calls."""
        return HttpConnection(self, self._limits, self.connections, self._rpc)

    def reconfigure(self, settings: Reconfigure) -> None:
        """Take other settings; they hold from the next request on."""
        self._limits.max_body_bytes = settings.max_body_bytes
        self._documents.reconfigure(settings)

    def check_deadlines(self, now: float) -> None:
        """Close connections that have been silent for too long. `now` is the monotonic clock in seconds."""
        for connection in tuple(self.connections):
            connection.check_deadlines(now)

    def drain(self) -> None:
        """Close each connection with the answer to what came on it."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.close_when_idle()

    def abort(self) -> None:
        """Drop all connections now."""
        for connection in tuple(self.connections):
            connection.abort()

    # What a connection calls.

    def refuse_early(self, exchange: HttpExchange) -> Deferred | None:
        """Refuse what would be answered too late, before its body is read."""
        if self._has_room() or exchange.url not in self._infers or exchange.method != b"POST":
            return None
        return self._service.refuse_early(exchange)

    def _carry_out(self, exchange: HttpExchange) -> None:
        table = self._tables.get(exchange.method)
        route = (table.get(exchange.url) if table is not None else None) or self._find(exchange)
        route(exchange)

    def cancel(self, exchange: HttpExchange) -> None:
        """The client of a request has gone."""
        self._service.cancel(exchange)

    # Routes.

    def _routes(self) -> tuple[dict[bytes, Route], dict[bytes, Route]]:
        name, version = self._settings.model, self._settings.version
        gets: dict[bytes, Route] = {}
        posts: dict[bytes, Route] = {}
        for prefix in ("", f"/{self._settings.namespace}"):
            gets[f"{prefix}/v2".encode()] = self._server_metadata
            gets[f"{prefix}/v2/".encode()] = self._server_metadata
            gets[f"{prefix}/v2/health/live".encode()] = self._live
            gets[f"{prefix}/v2/health/ready".encode()] = self._health_ready
            gets[f"{prefix}{OPENAPI}".encode()] = self._openapi
            traces = [f"{prefix}{TRACE_SETTING}", f"{prefix}/v2/models/{name}/trace/setting"]
            posts[f"{prefix}{REPOSITORY_INDEX}".encode()] = self._repository_index
            for path in (f"{prefix}/v2/models/{name}", f"{prefix}/v2/models/{name}/versions/{version}"):
                gets[path.encode()] = self._model_metadata
                gets[f"{path}/ready".encode()] = self._model_ready
                gets[f"{path}/config".encode()] = self._model_configuration
                gets[f"{path}/stats".encode()] = self._model_statistics
                posts[f"{path}/infer".encode()] = self._infer
            for path in traces:
                gets[path.encode()] = self._trace_settings
                posts[path.encode()] = self._refuse_trace_settings
        gets[b"/metrics"] = self._metrics
        return gets, posts

    def _find(self, exchange: HttpExchange) -> Route:
        """The route of a target that has a query, or names the host, too, or the error that says why there is none."""
        key = exchange.url.partition(b"?")[0]
        if key.startswith(_ABSOLUTE):  # RFC 9112, section 3.2.2: as clients of proxies write it
            key = b"/" + key.partition(b"://")[2].partition(b"/")[2]
        route = self._tables.get(exchange.method, {}).get(key)
        if route is not None:
            return route
        path = key.decode("latin-1")
        if key in self._posts or key in self._gets:
            wanted = "GET" if key in self._gets else "POST"
            raise MethodNotAllowed(path, wanted)
        if "%" in path:
            # Read otherwise than undecoded, it would be another path than the one that the gateway let pass and counted.
            raise Invalid(Refusal.NOT_FOUND, f"write the path as it is, without percent-encoding: {path}")
        serving = f"'{self._settings.model}' version '{self._settings.version}'"
        raise not_found(path, "this replica", serving, self._settings.namespace)

    def _infer(self, exchange: HttpExchange) -> None:
        request = self._decoder.decode(self._body(exchange), exchange.json_length)
        exchange.body = b""
        exchange.encoder = self._encoder
        self._service.infer(exchange, request, lone=exchange.connection.lone)

    def _body(self, exchange: HttpExchange) -> bytes | bytearray:
        """A request's body. It is decompressed here, not as it comes: until it is whole, it takes no more memory than was sent."""
        if not exchange.coding:
            return exchange.body
        return decompress(exchange.body, exchange.coding, self._limits.max_body_bytes)

    def _server_metadata(self, exchange: HttpExchange) -> None:
        exchange.connection.respond(exchange, 200, JSON, self._documents.server_metadata())

    def _live(self, exchange: HttpExchange) -> None:
        exchange.connection.respond(exchange, 200, JSON, b'{"live":true}')

    def _health_ready(self, exchange: HttpExchange) -> None:
        self._readiness(exchange, b'{"ready":true}')

    def _model_ready(self, exchange: HttpExchange) -> None:
        self._readiness(exchange, responses.model_readiness(self._settings.model, ready=True))

    def _readiness(self, exchange: HttpExchange, body: bytes) -> None:
        if not self._service.ready:
            raise Invalid(Refusal.DRAINING, LEAVING)
        exchange.connection.respond(exchange, 200, JSON, body)

    def _model_metadata(self, exchange: HttpExchange) -> None:
        exchange.connection.respond(exchange, 200, JSON, self._documents.model_metadata())

    def _model_configuration(self, exchange: HttpExchange) -> None:
        exchange.connection.respond(exchange, 200, JSON, self._documents.model_configuration())

    def _model_statistics(self, exchange: HttpExchange) -> None:
        exchange.connection.respond(exchange, 200, JSON, self._documents.model_statistics())

    def _repository_index(self, exchange: HttpExchange) -> None:
        ready_only = read_index_request(self._body(exchange))
        exchange.connection.respond(exchange, 200, JSON, self._documents.repository_index(ready_only=ready_only))

    def _openapi(self, exchange: HttpExchange) -> None:
        model = ServedModel(self._settings.model, self._settings.version, self._signature)
        exchange.connection.respond(exchange, 200, JSON, openapi_document(self._settings.namespace, model))

    def _trace_settings(self, exchange: HttpExchange) -> None:
        exchange.connection.respond(exchange, 200, JSON, self._documents.trace_settings())

    def _refuse_trace_settings(self, exchange: HttpExchange) -> None:
        raise trace_change_refused(exchange.url.partition(b"?")[0].decode("latin-1"))

    def _metrics(self, exchange: HttpExchange) -> None:
        exchange.connection.respond(exchange, 200, _TEXT, self._service.metrics_text())
