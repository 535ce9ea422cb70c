"""The control API of `penstock.routing.leases`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv6Address, ip_address

from aiohttp import hdrs, web
from pydantic import ValidationError

from penstock.errors import Conflict, Invalid, PenstockError, Unavailable
from penstock.models import Frozen
from penstock.routing.leases import (
    ASYNCHRONOUS,
    PREFER,
    Completion,
    LeaseGranted,
    ReplicaLease,
    Route,
    RouteList,
    RouteSet,
    RouteStatus,
    check_replica_id,
)
from penstock.routing.table import ModelKey, check_address
from penstock.routing.tokens import admin_token, matches, replica_token
from penstock_serving.gateway.holding import Holding
from penstock_serving.gateway.readiness import Readiness
from penstock_serving.gateway.registry import Registry
from penstock_serving.gateway.settings import Settings

logger = logging.getLogger(__name__)
_MAX_BODY_BYTES = 1 << 20
_SETTLE_SECONDS = 10.0
_SCHEME = "Bearer "
_STATUS: Mapping[type[PenstockError], int] = {Invalid: 400, Conflict: 403, Unavailable: 503}


class _Refused(Exception):
    """The caller may not."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _failure(status: int, message: str) -> web.Response:
    headers = {401: {hdrs.WWW_AUTHENTICATE: "Bearer"}, 503: {hdrs.RETRY_AFTER: "1"}}.get(status, {})
    return web.json_response({"error": message}, status=status, headers=headers)


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every error as JSON."""
    try:
        return await handler(request)
    except _Refused as refused:
        return _failure(refused.status, str(refused))
    except ValidationError as invalid:
        where = "; ".join(f"{'.'.join(str(p) for p in e['loc']) or 'body'}: {e['msg']}" for e in invalid.errors())
        return _failure(400, where)
    except PenstockError as error:
        return _failure(_STATUS.get(type(error), 500), error.message)
    except web.HTTPException as known:
        return _failure(known.status, known.reason)
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        return _failure(500, "the gateway agent failed; its log says why")


def _json(model: Frozen, status: int = 200) -> web.Response:
    return web.Response(status=status, text=model.model_dump_json(), content_type="application/json")


class ControlServer:
    """Leases from replicas, routes from the operator."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        holding: Holding,
        readiness: Readiness,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._holding = holding
        self._readiness = readiness

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(middlewares=[_errors], client_max_size=_MAX_BODY_BYTES)
        application.add_routes(
            [
                web.put("/v1/replicas/{replica_id}", self._put_replica),
                web.delete("/v1/replicas/{replica_id}", self._delete_replica),
                web.put("/v1/routes/{namespace}/{model}", self._put_route),
                web.delete("/v1/routes/{namespace}/{model}", self._delete_route),
                web.post("/v1/routes", self._add_routes),
                web.get("/v1/routes", self._get_routes, allow_head=False),
                web.head("/v1/routes", self._head_routes),
                web.put("/v1/complete", self._put_complete),
            ]
        )
        return application

    async def _put_replica(self, request: web.Request) -> web.Response:
        token, replica_id = _token(request), request.match_info["replica_id"]
        check_replica_id(replica_id)
        lease = ReplicaLease.model_validate_json(await request.read())
        _require(token, replica_token(self._settings.secret, lease.namespace, lease.model))
        if self._settings.own_addresses_only:
            _require_own_address(request.remote, lease.address)
        generation = self._registry.generation
        self._registry.lease(replica_id, lease)
        if generation != self._registry.generation:
            await self._registry.settled(_SETTLE_SECONDS)
        return _json(LeaseGranted(lease_seconds=lease.lease_seconds))

    async def _delete_replica(self, request: web.Request) -> web.Response:
        token = _token(request)
        replica_id = request.match_info["replica_id"]
        replica = self._registry.table.replicas.get(replica_id)
        if replica is None:
            # It has expired or was never there: what the caller asks for is already so once HAProxy knows it.
            await self._registry.settled(_SETTLE_SECONDS)
            return web.Response(status=204)
        _require(token, replica_token(self._settings.secret, *replica.key))
        self._registry.release(replica_id)
        await self._registry.settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    async def _put_route(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        route = Route.model_validate_json(await request.read())
        named = request.match_info["namespace"], request.match_info["model"]
        if (route.namespace, route.model) != named:
            raise Invalid("InvalidRoute", f"the path names {'/'.join(named)}, the body {route.namespace}/{route.model}")
        self._readiness.told()
        self._registry.declare(route)
        await self._registry.kept(_SETTLE_SECONDS)
        if ASYNCHRONOUS in request.headers.get(PREFER, ""):
            return _json(self._route_status(named), status=202)
        await self._registry.settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    def _route_status(self, key: ModelKey) -> RouteStatus:
        held, settled = self._holding.waiting().get(key, 0), key not in self._registry.turning
        return self._registry.table.status(key, held, self._registry.now(), settled=settled)

    async def _delete_route(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        self._registry.withdraw((request.match_info["namespace"], request.match_info["model"]))
        await self._registry.kept(_SETTLE_SECONDS)
        await self._registry.settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    async def _get_routes(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        table, now, waiting = self._registry.table, self._registry.now(), self._holding.waiting()
        listed = _json(RouteList(url=self._settings.url, routes=table.statuses(waiting, now, self._registry.turning)))
        listed.headers.update(self._readiness.state.headers())
        return listed

    async def _head_routes(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        return web.Response(headers=self._readiness.state.headers())

    async def _add_routes(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        routes = RouteSet.model_validate_json(await request.read()).routes
        self._readiness.told()
        self._registry.add(routes)
        await self._registry.kept(_SETTLE_SECONDS)
        await self._registry.settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    async def _put_complete(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        instance = Completion.model_validate_json(await request.read()).instance
        # What was declared without waiting may be under way to HAProxy still.
        await self._registry.settled(_SETTLE_SECONDS)
        self._readiness.completed(instance)
        return web.Response(status=204)

    def _require_admin(self, request: web.Request) -> None:
        _require(_token(request), admin_token(self._settings.secret))


def _token(request: web.Request) -> str:
    header = request.headers.get(hdrs.AUTHORIZATION, "")
    if not header.startswith(_SCHEME):
        raise _Refused(401, "send the token as 'Authorization: Bearer TOKEN'")
    return header.removeprefix(_SCHEME).strip()


def _require(given: str, wanted: str) -> None:
    if not matches(given, wanted):
        raise _Refused(403, "the token is not the one for this model or action")


def _require_own_address(remote: str | None, address: str) -> None:
    """A tenant could else have its requests sent to another's replica, or to anything that the gateway reaches."""
    claimed = ip_address(check_address(address))
    seen = ip_address(remote) if remote is not None else None
    mapped = seen.ipv4_mapped if isinstance(seen, IPv6Address) else None
    if claimed != (mapped or seen):
        raise _Refused(403, f"a replica may register its own address only: this is {mapped or seen}, not {claimed}")
