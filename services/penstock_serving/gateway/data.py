"""What HAProxy hands to the agent: the gateway's own paths, unknown models, and requests that find no replica."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

import penstock
from penstock.errors import Invalid, Unavailable
from penstock.routing.paths import ModelPath, parse_path
from penstock.routing.table import ModelKey
from penstock.routing.traffic import Destination, Target, Unknown, lookup
from penstock.telemetry import names
from penstock.telemetry.spans import SpanContext, SpanRecord, new_span_id, parse_traceparent
from penstock_serving.gateway.access_rules import API_KEY_HEADER, CALLER_HEADER, CREDENTIAL_HEADER, challenge
from penstock_serving.gateway.config import NAMESPACE_HEADER
from penstock_serving.gateway.gatekeeper import Gatekeeper, Refused
from penstock_serving.gateway.holding import DEFAULT_HOLD_SECONDS, Holding
from penstock_serving.gateway.readiness import Readiness
from penstock_serving.gateway.registry import Registry
from penstock_serving.gateway.settings import Settings

_HOP_BY_HOP = {
    hdrs.CONNECTION, hdrs.KEEP_ALIVE, hdrs.TE, hdrs.TRAILER, hdrs.TRANSFER_ENCODING, hdrs.UPGRADE, hdrs.CONTENT_LENGTH,
    hdrs.EXPECT, hdrs.PROXY_AUTHENTICATE, hdrs.PROXY_AUTHORIZATION,
}  # fmt: skip
_TRACERESPONSE = "traceresponse"
_COMPLETION_POLL_SECONDS = 0.25
"""That all routes are declared is no change of the table; whoever waits for it looks this often."""
_NOT_FOUND, _METHOD, _TOO_LARGE, _BUSY, _SERVER_ERROR, _UNAVAILABLE, _TIMEOUT = 404, 405, 413, 429, 500, 503, 504


def error(status: int, message: str) -> web.Response:
    """An error in the protocol's form."""
    headers = {hdrs.RETRY_AFTER: "1"} if status in (_BUSY, _UNAVAILABLE) else {}
    return web.json_response({"error": message}, status=status, headers=headers)


def choose(targets: Sequence[Target], tried: Iterable[str]) -> Target | None:
    """One of the targets not yet tried, at random by weight."""
    excluded = set(tried)
    left = [target for target in targets if target.replica_id not in excluded]
    # Not for secrets: any spread will do.
    return random.choices(left, [target.weight for target in left])[0] if left else None  # noqa: S311 -- see above


def _retry_seconds() -> float:
    return random.uniform(0.05, 0.25)  # noqa: S311 -- spreads the retries, guards nothing


class DataServer:
    """Answers or holds the requests that HAProxy hands over."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        holding: Holding,
        readiness: Readiness,
        gatekeeper: Gatekeeper,
        *,
        session: aiohttp.ClientSession,
        emit: Callable[[Iterable[SpanRecord]], None],
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._holding = holding
        self._readiness = readiness
        self._gatekeeper = gatekeeper
        self._session = session
        self._emit = emit

    def application(self) -> web.Application:
        """The aiohttp application. Its runner must cancel handlers whose client went away."""
        application = web.Application()
        application.router.add_route("*", r"/{path:[\s\S]*}", self.handle)
        return application

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request; every answer says whether its trace is kept."""
        began = time.time_ns()
        namespace = request.headers.get(NAMESPACE_HEADER, self._settings.default_namespace)
        path = None
        try:
            path = parse_path(namespace, request.rel_url.raw_path)
        except Invalid as encoded:
            response = error(_NOT_FOUND, encoded.message)
        else:
            response = self._own(request) if path is None else await self._let_or_refuse(request, path)
        self._trace(request, response, path, began)
        return response

    def _own(self, request: web.Request) -> web.Response:
        answers: dict[str, dict[str, str | bool | list[str]]] = {
            "/v2": {
                "name": "penstock",
                "version": penstock.__version__,
                "extensions": ["binary_tensor_data"],
            },
            "/v2/health/live": {"live": True},
            "/v2/health/ready": {"ready": self._readiness.complaint() is None},
        }
        answer = answers.get(request.path.rstrip("/"))
        if answer is None:
            return error(_NOT_FOUND, "there is no such path; models are under /v2/models/ or /NAMESPACE/v2/models/")
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            return error(_METHOD, f"{request.path} takes GET only")
        return web.json_response(answer, status=_UNAVAILABLE if answer.get("ready") is False else 200)

    async def _let_or_refuse(self, request: web.Request, path: ModelPath) -> web.Response:
        try:
            return await self._model(request, path)
        except Unavailable as unavailable:
            return error(_UNAVAILABLE, unavailable.message)
        except Refused as refused:
            response = error(refused.refusal.status, refused.refusal.value)
            response.headers.update(challenge(refused.refusal))
            return response

    async def _model(self, request: web.Request, path: ModelPath) -> web.Response:
        found = await self._found(path)
        if isinstance(found, Unknown) and not self._registry.table.knows(path.key):
            self._gatekeeper.admit_to_unknown(request.headers, path.key[0])
            return error(_NOT_FOUND, found.message)
        caller = await self._gatekeeper.admit(request.headers, path.key)
        if isinstance(found, Unknown):
            return error(_NOT_FOUND, found.message)
        if not found.targets and request.rel_url.raw_path.endswith("/ready"):
            return self._ready(path.key)
        with self._holding.body(path.key[0]) as body:
            try:
                await body.read(request.content, self._settings.max_body_bytes)
            except Invalid as invalid:
                return error(_TOO_LARGE, invalid.message)
            return await self._deliver(request, path, body.data, _for_replica(request.headers, caller))

    async def _found(self, path: ModelPath) -> Destination | Unknown:
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
            await self._registry.changed(self._registry.generation, _COMPLETION_POLL_SECONDS)

    def _ready(self, key: ModelKey) -> web.Response:
        """Whether a model without a replica would answer: one that is asleep would, since a request wakes it."""
        route = self._registry.table.routes.get(key)
        if route is not None and route.unavailable is None and route.wake_url is not None:
            return web.json_response({"name": key[1], "ready": True})
        return error(_UNAVAILABLE, self._problem(key) or f"no replica of model '{key[1]}' is ready yet")

    def _problem(self, key: ModelKey) -> str | None:
        """Why the model's replicas cannot start, where the operator says so."""
        route = self._registry.table.routes.get(key)
        if route is None or route.unavailable is None:
            return None
        return f"model '{key[1]}' cannot be served now: {route.unavailable}"

    async def _deliver(
        self, request: web.Request, path: ModelPath, body: bytearray, headers: Mapping[str, str]
    ) -> web.Response:
        """Pass the request to a replica, waiting for one as long as the route says."""
        route = self._registry.table.routes.get(path.key)
        hold = route.hold_seconds if route is not None else DEFAULT_HOLD_SECONDS
        # HAProxy gives up on us after the request timeout; we answer before.
        deadline = self._registry.now() + min(hold, self._settings.request_timeout_seconds * 0.9)
        last: web.Response | None = None
        tried: set[str] = set()
        while True:
            found = await self._replicas(path, deadline)
            if isinstance(found, Unknown):
                return error(_NOT_FOUND, found.message)
            target = choose(found.targets, tried)
            if target is not None:
                tried.add(target.replica_id)
                last = await self._attempt(request, target, body, headers)
                if last is not None and last.status != _BUSY:
                    return last
            elif (problem := self._problem(path.key)) is not None and not found.targets:
                return error(_UNAVAILABLE, problem)
            elif self._registry.now() < deadline:
                # Replicas that failed or were full just now are tried again after a moment.
                tried.clear()
                await asyncio.sleep(_retry_seconds())
            else:
                return last or error(_UNAVAILABLE, f"no replica of model '{path.key[1]}' was ready within {hold:g} s")

    async def _replicas(self, path: ModelPath, deadline: float) -> Destination | Unknown:
        """Where the request goes, once there is a replica or the deadline has passed."""
        found = lookup(self._registry.table, path.key, path.version)
        if isinstance(found, Unknown) or found.targets:
            return found
        with self._holding.place(path.key):
            while True:
                generation = self._registry.generation
                found = lookup(self._registry.table, path.key, path.version)
                left = deadline - self._registry.now()
                if isinstance(found, Unknown) or found.targets or left <= 0 or self._problem(path.key) is not None:
                    return found
                await self._registry.changed(generation, left)

    async def _attempt(
        self, request: web.Request, target: Target, body: bytearray, headers: Mapping[str, str]
    ) -> web.Response | None:
        """The replica's answer, or None where it did not give one."""
        url = URL(f"http://{target.address}{request.rel_url.raw_path_qs}", encoded=True)
        timeout = aiohttp.ClientTimeout(total=self._settings.request_timeout_seconds * 0.9, connect=1.0)
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=body or None, timeout=timeout, allow_redirects=False
            ) as answer:
                content = await answer.read()
                return web.Response(status=answer.status, headers=_end_to_end(answer.headers), body=content)
        except aiohttp.ConnectionTimeoutError:
            return None
        except TimeoutError:
            return error(_TIMEOUT, "the replica did not answer in time")
        except aiohttp.ClientError:
            return None

    def _trace(self, request: web.Request, response: web.Response, path: ModelPath | None, began: int) -> None:
        """Say in the answer whether the trace is kept; if so, and if it is a model's, emit the time here as a span."""
        parent = parse_traceparent(request.headers.get("traceparent", ""))
        if parent is None:
            return
        answered = parse_traceparent(response.headers.get(_TRACERESPONSE, ""))
        kept = (answered or parent).sampled or response.status >= _SERVER_ERROR
        if answered is None:
            response.headers[_TRACERESPONSE] = SpanContext(parent.trace_id, parent.span_id, kept).traceparent()
        if not kept or path is None:
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


def _for_replica(headers: Mapping[str, str], caller: str | None) -> CIMultiDict[str]:
    """What a replica is told: who asks, and nothing by which it could ask in their name."""
    left = _end_to_end(headers)
    for name in (hdrs.AUTHORIZATION, API_KEY_HEADER, CALLER_HEADER, CREDENTIAL_HEADER):
        left.popall(name, None)
    if caller is not None:
        left[CALLER_HEADER] = caller
    return left


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers that pass a proxy."""
    named = {name.strip().lower() for name in headers.get(hdrs.CONNECTION, "").split(",")}
    left = CIMultiDict(headers)
    for name in (*_HOP_BY_HOP, *named):
        left.popall(name, None)
    return left
