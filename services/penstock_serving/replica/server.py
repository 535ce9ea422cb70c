"""The replica's routes: the Open Inference Protocol v2 for the one model that it serves."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from penstock.errors import Invalid, PenstockError
from penstock.protocol.refusals import Refusal, error_document, nothing_at, status_of, wrong_method
from penstock.routing.leases import MOST_CHARACTERS, ReplicaStats, RequestsJoined
from penstock.serving.settings import Reconfigure, ReplicaSettings
from penstock_runtime.batching.batcher import Ticket
from penstock_runtime.engines import Array
from penstock_runtime.spans import SpanSink
from penstock_serving.replica.cache.answering import CACHE_STATUS, CachedAnswers
from penstock_serving.replica.cache.cache import PredictionCache
from penstock_serving.replica.cache.keys import InputKeys
from penstock_serving.replica.codec import responses
from penstock_serving.replica.codec.requests import InferRequest, RequestDecoder
from penstock_serving.replica.exchange import Exchange
from penstock_serving.replica.execution.executor import Executor
from penstock_serving.replica.execution.joint import Ran
from penstock_serving.replica.front.connection import HttpConnection, Limits
from penstock_serving.replica.front.guard import Guard
from penstock_serving.replica.model.loading import LoadedModel
from penstock_serving.replica.telemetry.load import LoadMeter
from penstock_serving.replica.telemetry.metrics import ReplicaMetrics
from penstock_serving.replica.telemetry.tracing import Tracer

logger = logging.getLogger(__name__)

_JSON: Final = b"Content-Type: application/json\r\n"
_BINARY: Final = b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\n"
_TEXT: Final = b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
_DEFECT: Final = "internal error; the replica's log has the details"

Route = Callable[[Exchange], None]


class ReplicaServer:
    """Decodes, batches, runs and answers. All methods are called on the event loop."""

    def __init__(self, settings: ReplicaSettings, model: LoadedModel, sink: SpanSink) -> None:
        self._settings = settings
        self._signature = model.signature
        self._trial = model.trial
        self._platform = model.engine.platform
        self.guard = Guard(settings.namespace, settings.registration_token)
        self._limits = Limits(settings.max_body_bytes, self.guard)
        self.connections: set[HttpConnection] = set()
        self._decoder = RequestDecoder(model.signature, model.trial.joining)
        self._encoder = responses.ResponseEncoder(settings.model, settings.version)
        self._load = LoadMeter(settings.lease_seconds, time.monotonic())
        # A replica serves one namespace, and only what is within one may be shared. No header of a client's is asked.
        keys = InputKeys(model.digest, settings.namespace, model.signature)
        self._cache: PredictionCache[Exchange] = PredictionCache(keys, settings.cache)
        self._cached = CachedAnswers(self._cache, self._run, self._answer_without_run, self._expired_in_flight)
        self.metrics = ReplicaMetrics(settings.namespace, settings.model, settings.version, self._load, self._cache)
        self.tracer = Tracer(settings, sink)
        self.executor = Executor(model.engine, model.trial, settings.batching, self._ran, self._expired)
        self.metrics.joined = model.trial.joining is not None
        self.ready = True
        self.answered = asyncio.Event()
        """Set once a first batch has been answered."""
        self._gets, self._posts = self._routes()
        self._tables = {b"GET": self._gets, b"HEAD": self._gets, b"POST": self._posts}

    def connection(self) -> HttpConnection:
        """A protocol for a new client; the factory that the event loop's server calls."""
        return HttpConnection(self, self._limits, self.connections)

    def reconfigure(self, settings: Reconfigure) -> None:
        """Take other settings without dropping a request."""
        self.executor.batcher.reconfigure(settings.batching)
        self._cache.reconfigure(settings.cache, time.monotonic())
        self.tracer.set_slo(settings.slo_milliseconds)

    def stats(self) -> ReplicaStats:
        """What the replica saw lately."""
        return self._load.stats(time.monotonic(), self.executor.batcher.queued)

    @property
    def joining(self) -> RequestsJoined:
        """Whether requests are joined into one run, and why not."""
        apart = self.executor.apart
        if apart is not None:
            return RequestsJoined(joined=False, reason=f"ended while serving: {apart}"[:MOST_CHARACTERS])
        return RequestsJoined(joined=self._trial.joining is not None, reason=self._trial.reason[:MOST_CHARACTERS])

    @property
    def in_flight(self) -> int:
        """Infer requests that are not answered yet."""
        return self._load.in_flight + self._cache.waiting

    def tick(self) -> None:
        """Called about once a second."""
        now = time.monotonic()
        self._load.tick(now)
        self.tracer.synchronize()
        for connection in tuple(self.connections):
            connection.check_deadlines(now)

    # What an HTTP connection calls.

    def handle(self, exchange: Exchange) -> None:
        """Answer a request or queue it."""
        try:
            table = self._tables.get(exchange.method)
            route = (table.get(exchange.url) if table is not None else None) or self._find(exchange)
            route(exchange)
        except PenstockError as error:
            self._fail(exchange, error)
        except Exception:
            logger.exception("a request failed by a defect of the replica")
            self._fail(exchange, Invalid(Refusal.ENGINE_FAILED, _DEFECT))

    def refuse(self, exchange: Exchange, error: Invalid, *, close: bool) -> None:
        """Answer a request that is wrong as HTTP."""
        if close:
            exchange.keep_alive = False
        logger.info("refused a request: %s", error.message)
        self._fail(exchange, error)

    def disconnected(self, exchange: Exchange) -> None:
        """Take the request of a client that has gone out of the queue. One that is executing ends with its batch."""
        unwanted = self._cached.left(exchange)
        if unwanted is not None and unwanted.ticket is not None and self.executor.cancel(unwanted.ticket):
            unwanted.flight = None
            self._load.left(time.monotonic())

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
            for path in (f"{prefix}/v2/models/{name}", f"{prefix}/v2/models/{name}/versions/{version}"):
                gets[path.encode()] = self._model_metadata
                gets[f"{path}/ready".encode()] = self._model_ready
                posts[f"{path}/infer".encode()] = self._infer
        gets[b"/metrics"] = self._metrics
        return gets, posts

    def _find(self, exchange: Exchange) -> Route:
        """The route of a target that has a query, or the error that says why there is none."""
        key = exchange.url.partition(b"?")[0]
        route = self._tables.get(exchange.method, {}).get(key)
        if route is not None:
            return route
        path = key.decode("latin-1")
        if key in self._posts or key in self._gets:
            wanted = "POST" if key in self._posts else "GET"
            raise wrong_method(path, wanted)
        if "%" in path:
            # Read otherwise than undecoded, it would be another path than the one that the gateway let pass and counted.
            raise Invalid(Refusal.NOT_FOUND, f"write the path as it is, without percent-encoding: {path}")
        serving = f"'{self._settings.model}' version '{self._settings.version}'"
        raise nothing_at(path, "this replica", serving, self._settings.namespace)

    def _server_metadata(self, exchange: Exchange) -> None:
        exchange.connection.respond(exchange, 200, _JSON, responses.server_metadata())

    def _live(self, exchange: Exchange) -> None:
        exchange.connection.respond(exchange, 200, _JSON, b'{"live":true}')

    def _health_ready(self, exchange: Exchange) -> None:
        self._readiness(exchange, b'{"ready":true}')

    def _model_ready(self, exchange: Exchange) -> None:
        self._readiness(exchange, responses.model_readiness(self._settings.model, ready=True))

    def _readiness(self, exchange: Exchange, body: bytes) -> None:
        if not self.ready:
            raise Invalid(Refusal.DRAINING, "this replica is leaving")
        exchange.connection.respond(exchange, 200, _JSON, body)

    @property
    def model_metadata(self) -> bytes:
        """The protocol's document on the model."""
        return responses.model_metadata(
            self._settings.model, self._settings.version, self._platform, self._signature, self.joining
        )

    def _model_metadata(self, exchange: Exchange) -> None:
        exchange.connection.respond(exchange, 200, _JSON, self.model_metadata)

    def _metrics(self, exchange: Exchange) -> None:
        exchange.connection.respond(exchange, 200, _TEXT, self.metrics.text(self.executor.batcher.queued))

    def _infer(self, exchange: Exchange) -> None:
        request = self._decoder.decode(exchange.body, exchange.json_length)
        exchange.body = b""
        exchange.request = request
        exchange.decoded_ns = time.monotonic_ns()
        if not (self._cache.enabled and self._cached.take(exchange, request, _deadline(exchange, request))):
            self._run(exchange, request, exchange.decoded_ns / 1e9)

    def _run(self, exchange: Exchange, request: InferRequest, now: float) -> None:
        ticket = Ticket(exchange, request.rows, request.bucket, request.priority, _deadline(exchange, request))
        exchange.ticket = ticket
        self._load.arrived(now)
        rejected = self.executor.submit(ticket, now, lone=len(self.connections) == 1)
        if rejected is not None:
            seconds = max(math.ceil(rejected.retry_after_seconds), 1)
            error = Invalid(Refusal.QUEUE_FULL, f"the queue is full; try again in {seconds} s")
            exchange.ticket = None
            self._load.left(now)
            for refused in (exchange, *self._cached.dropped(exchange)):
                self._fail(refused, error, b"Retry-After: %d\r\n" % seconds)

    # What the executor calls.

    def _ran(self, ran: Ran) -> None:
        metrics = self.metrics
        waits = self._load.waits
        metrics.batch_rows.observe(ran.rows)
        metrics.execute_seconds.observe((ran.end_ns - ran.start_ns) / 1e9)
        if ran.apart is not None:
            self.metrics.joined = False
            # What earlier joint runs gave may be wrong, too.
            self._cache.forget(time.monotonic())
        if self._cache.enabled:
            self._cache.ran(len(ran.members), (ran.end_ns - ran.start_ns) / 1e9)
        members: list[Exchange] = []
        for ticket, result in zip(ran.members, ran.results, strict=True):
            exchange = ticket.payload
            members.append(exchange)
            exchange.execute_start_ns = ran.start_ns
            exchange.execute_end_ns = ran.end_ns
            waits.observe((ran.start_ns - exchange.decoded_ns) / 1e9)
            if isinstance(result, Invalid):
                self._fail(exchange, result)
            else:
                self._answer(exchange, result)
            self._load.left(exchange.written_ns / 1e9)
            if exchange.flight is not None:
                self._cached.ran(exchange, result)
        self.tracer.batch_answered(members, ran.rows)
        self.answered.set()

    def _expired(self, exchange: Exchange) -> None:
        self._load.left(time.monotonic())
        self._fail_expired(exchange)
        self._cached.abandoned(exchange)

    def _fail_expired(self, exchange: Exchange) -> None:
        timeout = exchange.request.timeout_seconds if exchange.request is not None else 0
        self._fail(exchange, Invalid(Refusal.EXPIRED, f"the request waited for longer than its timeout of {timeout} s"))

    # What the cache calls.

    def _expired_in_flight(self, exchange: Exchange) -> None:
        self.disconnected(exchange)
        self._fail_expired(exchange)

    def _answer_without_run(self, exchange: Exchange, result: Mapping[str, Array] | Invalid) -> None:
        if isinstance(result, Invalid):
            self._fail(exchange, result)
        else:
            self._answer(exchange, result)
            if exchange.encoded_ns:
                self.tracer.answered(exchange)
        self._load.touched(exchange.written_ns / 1e9)

    # Answers.

    def _answer(self, exchange: Exchange, outputs: Mapping[str, Array]) -> None:
        request = exchange.request
        if request is None:
            return
        try:
            body, json_length = self._encoder.encode(request, outputs)
        except Invalid as error:
            self._fail(exchange, error)
            return
        except Exception:
            logger.exception("an answer could not be written, by a defect of the replica")
            self._fail(exchange, Invalid(Refusal.ENGINE_FAILED, _DEFECT))
            return
        headers = _JSON if json_length is None else _BINARY % json_length
        exchange.encoded_ns = time.monotonic_ns()
        self._respond(exchange, 200, headers, body)

    def _fail(self, exchange: Exchange, error: PenstockError, headers: bytes = b"") -> None:
        body = error_document(error.message)
        self._respond(exchange, status_of(error), _JSON + headers, body)
        if exchange.execute_start_ns == 0:
            self.tracer.answered(exchange)

    def _respond(self, exchange: Exchange, status: int, headers: bytes, body: bytes) -> None:
        if exchange.cache is not None:
            headers += CACHE_STATUS[exchange.cache]
        trace = self.tracer.decide(exchange, status, exchange.encoded_ns or time.monotonic_ns())
        exchange.connection.respond(exchange, status, headers + trace if trace else headers, body)
        now = exchange.written_ns = time.monotonic_ns()
        self.metrics.requests[status] += 1
        self.metrics.request_seconds.observe((now - exchange.received_ns) / 1e9)
        # The ticket holds the exchange: without this, only the cycle collector could free the two.
        exchange.ticket = None


def _deadline(exchange: Exchange, request: InferRequest) -> float | None:
    """Until when a request may wait for its run, in seconds of the monotonic clock."""
    if request.timeout_seconds is None:
        return None
    return exchange.received_ns / 1e9 + request.timeout_seconds


async def listen(server: ReplicaServer, host: str, port: int) -> tuple[asyncio.Server, str]:
    """Start listening. Returns the server and its `host:port`."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(server.connection, host, port, backlog=1024)
    bound = listener.sockets[0].getsockname()[1]
    return listener, f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"
