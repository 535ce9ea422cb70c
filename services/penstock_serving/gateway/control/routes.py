"""Routes, as the operator declares them."""

from __future__ import annotations

import contextlib

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import from_json

from penstock.errors import Invalid, Unavailable
from penstock.routing.access import RouteAccess
from penstock.routing.fleet import FEATURES_HEADER, downgrade_status
from penstock.routing.leases import ASK_JOINING, ASYNCHRONOUS, PREFER, Route, RouteList, RouteSet, RouteStatus
from penstock.routing.table import ModelKey
from penstock_serving.gateway.control.callers import Callers, RequestRefused, json_response, read_body, require_same
from penstock_serving.gateway.holding.waiting import Holding
from penstock_serving.gateway.readiness import Readiness
from penstock_serving.gateway.settings import GatewaySettings
from penstock_serving.gateway.table.registry import Registry

_ROUTES_BYTES = 8 * 1024 * 1024
"""Of the operator's word: a route that names each of a namespace's keys has 1.8 MiB at most."""
_SETTLE_SECONDS = 10.0


class RouteHandlers:
    """`/v1/routes`."""

    def __init__(
        self, settings: GatewaySettings, registry: Registry, holding: Holding, readiness: Readiness, callers: Callers
    ) -> None:
        self._url = settings.url
        self._registry = registry
        self._holding = holding
        self._readiness = readiness
        self._callers = callers

    def routes(self) -> list[web.RouteDef]:
        """What is answered here."""
        return [
            web.put("/v1/routes/{namespace}/{model}", self._put),
            web.delete("/v1/routes/{namespace}/{model}", self._delete),
            web.post("/v1/routes", self._add),
            web.get("/v1/routes", self._get, allow_head=False),
            web.head("/v1/routes", self._head),
        ]

    async def _put(self, request: web.Request) -> web.Response:
        self._callers.require_operator(request)
        named = request.match_info["namespace"], request.match_info["model"]
        body = b""
        try:
            body = await read_body(request, _ROUTES_BYTES)
            route = Route.model_validate_json(body)
            require_same("InvalidRoute", "/".join(named), f"{route.namespace}/{route.model}")
            self._readiness.note_declaration()
            self._registry.declare(route)
        except (RequestRefused, ValidationError, Invalid):
            self._take_access_or_close(named, body)
            await self._wait_until_closed()
            raise
        await self._registry.wait_until_stored(_SETTLE_SECONDS)
        if ASYNCHRONOUS in request.headers.get(PREFER, ""):
            return json_response(self._downgrade(request, self._status(named)), status=202)
        await self._registry.wait_until_settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    async def _wait_until_closed(self) -> None:
        """Wait until HAProxy lets nobody in any more, before the operator is told why."""
        with contextlib.suppress(Unavailable):
            await self._registry.wait_until_settled(_SETTLE_SECONDS)

    def _take_access_or_close(self, named: ModelKey, body: bytes) -> None:
        """Of a route that cannot be taken, who may ask is taken for itself; where that cannot be, nobody may.

        A key that was taken away must not go on opening the model because something else was wrong.
        """
        before = self._registry.table.routes.get(named)
        if before is None:
            return
        with contextlib.suppress(ValueError, ValidationError, Invalid):
            said = from_json(body)
            if isinstance(said, dict) and (said.get("namespace"), said.get("model")) == named:
                access = None if said.get("access") is None else RouteAccess.model_validate(said["access"])
                self._registry.declare(before.model_copy(update={"access": access}))
                return
        self._registry.close(named)

    def _status(self, key: ModelKey) -> RouteStatus:
        held, settled = self._holding.count_waiting().get(key, 0), key not in self._registry.turning
        return self._registry.table.status(key, held, self._registry.now(), settled=settled)

    async def _delete(self, request: web.Request) -> web.Response:
        self._callers.require_operator(request)
        self._registry.withdraw((request.match_info["namespace"], request.match_info["model"]))
        await self._registry.wait_until_stored(_SETTLE_SECONDS)
        await self._registry.wait_until_settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    async def _get(self, request: web.Request) -> web.Response:
        self._callers.require_operator(request)
        table, now, waiting = self._registry.table, self._registry.now(), self._holding.count_waiting()
        statuses = table.statuses(waiting, now, self._registry.turning, joining=ASK_JOINING in request.query)
        listed = json_response(RouteList(url=self._url, routes=[self._downgrade(request, each) for each in statuses]))
        listed.headers.update(self._readiness.state.headers())
        return listed

    def _downgrade(self, request: web.Request, status: RouteStatus) -> RouteStatus:
        """How a route stands, in words that the asking operator knows: one of a former release refuses any others."""
        return downgrade_status(request.headers.get(FEATURES_HEADER, "").split(), status)

    async def _head(self, request: web.Request) -> web.Response:
        self._callers.require_operator(request)
        return web.Response(headers=self._readiness.state.headers())

    async def _add(self, request: web.Request) -> web.Response:
        self._callers.require_operator(request)
        routes = RouteSet.model_validate_json(await read_body(request, _ROUTES_BYTES)).routes
        self._readiness.note_declaration()
        self._registry.add(routes)
        await self._registry.wait_until_stored(_SETTLE_SECONDS)
        await self._registry.wait_until_settled(_SETTLE_SECONDS)
        return web.Response(status=204)
