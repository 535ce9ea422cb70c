"""What HAProxy hands to the agent: the gateway's own paths, unknown models, and requests that find no replica."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

import aiohttp
from aiohttp import hdrs, web

from penstock.errors import Invalid, Unavailable
from penstock.protocol.refusals import MethodNotAllowed, not_found
from penstock.protocol.server import trace_change_refused, trace_settings
from penstock.routing.table import ModelKey
from penstock.routing.tokens import word_for
from penstock.telemetry import names
from penstock.telemetry.spans import (
    SpanContext,
    SpanRecord,
    gateway_context,
    new_span_id,
    new_trace_id,
    parse_traceparent,
)
from penstock_serving.gateway.access.gatekeeper import AccessDenied, Gatekeeper
from penstock_serving.gateway.answers import document, error, wrong_method
from penstock_serving.gateway.haproxy.access_rules import challenge
from penstock_serving.gateway.haproxy.grpc_rules import CALL_HEADER
from penstock_serving.gateway.haproxy.usual import GATEWAY_HEADER
from penstock_serving.gateway.holding.calls import STREAM, answer_call
from penstock_serving.gateway.holding.forwarding import TRACERESPONSE, Forwarding, choose, replica_headers
from penstock_serving.gateway.holding.own import OwnPaths
from penstock_serving.gateway.holding.relaying import STREAM_BYTES, relay_stream
from penstock_serving.gateway.holding.waiting import DEFAULT_HOLD_SECONDS, Holding
from penstock_serving.gateway.holding.watching import WATCH, HealthWatch
from penstock_serving.gateway.readiness import Readiness
from penstock_serving.gateway.settings import GatewaySettings
from penstock_serving.gateway.table.paths import ModelOperation, ModelPath, parse_path
from penstock_serving.gateway.table.registry import Registry
from penstock_serving.gateway.table.standing import can_wake, describe_missing, find_problem
from penstock_serving.gateway.table.traffic import Destination, Target, Unknown, lookup

_COMPLETION_POLL_SECONDS = 0.25
"""That all routes are declared is no change of the table; whoever waits for it looks this often."""
_NOT_FOUND, _TOO_LARGE, _BUSY, _SERVER_ERROR, _UNAVAILABLE = 404, 413, 429, 500, 503

_Attempt = Callable[[Target, Mapping[str, str]], Awaitable[web.StreamResponse | None]]
"""Asks one replica, which is told these headers; None: it gave no answer, and another may be asked."""


def _retry_seconds() -> float:
    return random.uniform(0.05, 0.25)  # noqa: S311 -- spreads the retries, guards nothing


class DataServer:
    """Answers or holds the requests that HAProxy hands over."""

    def __init__(
        self,
        settings: GatewaySettings,
        registry: Registry,
        holding: Holding,
        readiness: Readiness,
        gatekeeper: Gatekeeper,
        *,
        session: aiohttp.ClientSession,
        trust: ssl.SSLContext | None = None,
        emit: Callable[[Iterable[SpanRecord]], None],
        traced: bool,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._holding = holding
        self._readiness = readiness
        self._gatekeeper = gatekeeper
        self._forwarding = Forwarding(session, holding, settings.request_timeout_seconds * 0.9, _mark, trust)
        self._emit = emit
        self._traced = traced
        self._trust = trust
        self._watch = HealthWatch(settings, readiness)
        self._own = OwnPaths(
            registry,
            holding,
            readiness,
            gatekeeper,
            default_namespace=settings.default_namespace,
            traced=traced,
        )

    def application(self) -> web.Application:
        """The aiohttp application. Its runner must cancel handlers whose client went away."""
        application = web.Application()
        application.router.add_route("*", r"/{path:[\s\S]*}", self.handle)
        return application

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request or call."""
        call = request.headers.get(CALL_HEADER)
        if call == WATCH:
            return await self._watch.answer(request)
        return await (self._answer(request) if call is None else answer_call(request, call, self._answer))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; every answer says whether its trace is kept."""
        began = time.time_ns()
        namespace = request.headers.get(GATEWAY_HEADER, self._settings.default_namespace).partition("/")[0]
        path = None
        response: web.StreamResponse
        try:
            path = parse_path(namespace, request.rel_url.raw_path)
        except Invalid as encoded:
            response = error(_NOT_FOUND, encoded.message)
        else:
            if path is None:
                answering: Awaitable[web.StreamResponse] = self._own.answer(request, namespace)
            else:
                answering = self._answer_model(request, path)
            response = await self._answer_or_refuse(answering)
        self._trace(request, response, path, began)
        return response

    async def _answer_or_refuse(self, answering: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        try:
            return await answering
        except Unavailable as unavailable:
            return error(_UNAVAILABLE, unavailable.message)
        except AccessDenied as refused:
            response = error(refused.refusal.status, refused.refusal.value)
            response.headers.update(challenge(refused.refusal))
            return response

    async def _answer_model(self, request: web.Request, path: ModelPath) -> web.StreamResponse:
        found = await self._find(path)
        if isinstance(found, Unknown) and not self._registry.table.knows(path.key):
            self._gatekeeper.admit_to_unknown(request.headers, path.key[0])
            return error(_NOT_FOUND, found.message)
        caller = await self._gatekeeper.admit(request.headers, path.key)
        if isinstance(found, Unknown):
            return error(_NOT_FOUND, found.message)
        if not found.targets and (looked := self._describe(request, path)) is not None:
            return looked
        told = replica_headers(request.headers, caller)
        if request.headers.get(CALL_HEADER) == STREAM:
            with self._holding.reserve(path.key[0], STREAM_BYTES):
                return await self._deliver(path, told, partial(relay_stream, request, self._trust))
        with self._holding.body(path.key[0]) as body:
            try:
                await body.read(request.content, self._settings.max_body_bytes)
            except Invalid as invalid:
                return error(_TOO_LARGE, invalid.message)
            return await self._deliver(path, told, partial(self._forwarding.attempt, request, path.key[0], body.data))

    async def _find(self, path: ModelPath) -> Destination | Unknown:
        """Where the request goes. A model is known to be unknown only once the operator has declared all routes.

        Raises:
            Unavailable: it may be one whose route has not been declared yet.
        """
        deadline = self._registry.now() + self._settings.request_timeout_seconds * 0.9
        while True:
            found = lookup(self._registry.table, path.key, path.version)
            if not isinstance(found, Unknown) or self._registry.table.knows(path.key) or self._readiness.complete:
                return found
            if not self._readiness.awaits or self._registry.now() > deadline:
                raise Unavailable(
                    "RoutesUnknown", f"this gateway does not know yet whether there is a model '{path.key[1]}'"
                )
            await self._registry.wait_for_change(self._registry.generation, _COMPLETION_POLL_SECONDS)

    def _describe(self, request: web.Request, path: ModelPath) -> web.Response | None:
        """The answer to what runs no model: it is worth no replica's start. None: it is an inference."""
        raw = request.rel_url.raw_path
        if path.asked is ModelOperation.NOTHING:
            return error(_NOT_FOUND, not_found(raw, "this gateway", f"'{path.key[1]}'", path.key[0]).message)
        wanted = path.asked.method
        if request.method != wanted and (request.method, wanted) != (hdrs.METH_HEAD, hdrs.METH_GET):
            changes = path.asked is ModelOperation.TRACE_SETTING and request.method == hdrs.METH_POST
            return wrong_method(trace_change_refused(raw) if changes else MethodNotAllowed(raw, wanted))
        match path.asked:
            case ModelOperation.READY:
                return self._answer_readiness(path.key)
            case ModelOperation.METADATA | ModelOperation.CONFIGURATION | ModelOperation.STATISTICS:
                return self._tell(path)
            case ModelOperation.TRACE_SETTING:
                return document(trace_settings(exported=self._traced))
            case _:
                return None

    def _tell(self, path: ModelPath) -> web.Response:
        """What the model's last replica said of it. How it is configured may have changed since, and is its replicas' word alone."""
        key = path.key
        asks_metadata = path.asked is ModelOperation.METADATA
        told = self._registry.descriptions.find(key, path.version) if asks_metadata else None
        if told is not None:
            return document(told)
        what = {
            ModelOperation.METADATA: "what it takes and gives",
            ModelOperation.STATISTICS: "what it has counted",
        }.get(path.asked, "how it is configured")
        said = f"model '{key[1]}' has no replica now that could tell {what}; an inference starts one"
        return error(_UNAVAILABLE, find_problem(self._registry.table, key) or said)

    def _answer_readiness(self, key: ModelKey) -> web.Response:
        table = self._registry.table
        if can_wake(table, key):
            return web.json_response({"name": key[1], "ready": True})
        return error(_UNAVAILABLE, describe_missing(table, key))

    async def _deliver(self, path: ModelPath, headers: Mapping[str, str], attempt: _Attempt) -> web.StreamResponse:
        """Pass the request to a replica, waiting for one as long as the route says."""
        route = self._registry.table.routes.get(path.key)
        hold = route.hold_seconds if route is not None else DEFAULT_HOLD_SECONDS
        hold = min(hold, self._settings.hold_seconds or hold)
        # HAProxy gives up on us after the request timeout; we answer before.
        deadline = self._registry.now() + min(hold, self._settings.request_timeout_seconds * 0.9)
        last: web.StreamResponse | None = None
        tried: set[str] = set()
        while True:
            found = await self._wait_for_replicas(path, deadline)
            if isinstance(found, Unknown):
                return error(_NOT_FOUND, found.message)
            target = choose(found.targets, tried)
            if target is not None:
                tried.add(target.replica_id)
                shown = word_for(self._settings.secret, path.key, found.uid)
                last = await attempt(target, {**headers, GATEWAY_HEADER: shown})
                if last is not None and last.status != _BUSY:
                    return last
            elif (problem := find_problem(self._registry.table, path.key)) is not None and not found.targets:
                return error(_UNAVAILABLE, problem)
            elif self._registry.now() < deadline:
                # Replicas that failed or were full just now are tried again after a moment.
                tried.clear()
                await asyncio.sleep(_retry_seconds())
            else:
                return last or error(_UNAVAILABLE, f"no replica of model '{path.key[1]}' was ready within {hold:g} s")

    async def _wait_for_replicas(self, path: ModelPath, deadline: float) -> Destination | Unknown:
        """Where the request goes, once there is a replica or the deadline has passed."""
        found = lookup(self._registry.table, path.key, path.version)
        if isinstance(found, Unknown) or found.targets:
            return found
        with self._holding.place(path.key):
            while True:
                generation = self._registry.generation
                found = lookup(self._registry.table, path.key, path.version)
                left = deadline - self._registry.now()
                if (
                    isinstance(found, Unknown)
                    or found.targets
                    or left <= 0
                    or find_problem(self._registry.table, path.key) is not None
                ):
                    return found
                await self._registry.wait_for_change(generation, left)

    def _trace(self, request: web.Request, response: web.StreamResponse, path: ModelPath | None, began: int) -> None:
        """Say in the answer whether the trace is kept; if so, and if it is a model's, emit the time here as a span."""
        parent = _mark(request, response)
        if parent is None or path is None:
            return
        self._emit(
            [
                SpanRecord(
                    name=names.SPAN_HOLD,
                    context=SpanContext(parent.trace_id, new_span_id(), sampled=True),
                    parent=parent,
                    start_ns=began,
                    end_ns=time.time_ns(),
                    attributes={names.ATTR_NAMESPACE: path.key[0], names.ATTR_MODEL: path.key[1]},
                    error=f"status {response.status}" if response.status >= _SERVER_ERROR else None,
                )
            ]
        )


def _mark(request: web.Request, response: web.StreamResponse) -> SpanContext | None:
    """Say in the answer's head whether the trace is kept. Where it is, the span that the time here is within."""
    parent = parse_traceparent(request.headers.get("traceparent", ""))
    answered = parse_traceparent(response.headers.get(TRACERESPONSE, ""))
    if parent is None:
        # It comes from a replica's backend, none of which could answer. Whoever answers begins the trace, if it is kept.
        if answered is None and response.status >= _SERVER_ERROR:
            answered = SpanContext(new_trace_id(), new_span_id(), sampled=True)
            response.headers[TRACERESPONSE] = answered.traceparent()
        return gateway_context(answered) if answered is not None and answered.sampled else None
    kept = (answered or parent).sampled or response.status >= _SERVER_ERROR
    if answered is None:
        response.headers[TRACERESPONSE] = SpanContext(parent.trace_id, parent.span_id, kept).traceparent()
    return parent if kept else None
