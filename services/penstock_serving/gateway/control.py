"""The control API of `penstock.routing.leases`.

Whoever reaches the port may send anything, so a token is looked at before a body is: one that does not hold costs a look at the
request's head and one short answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any

from aiohttp import hdrs, web
from pydantic import ValidationError
from pydantic_core import from_json

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
from penstock.routing.table import ModelKey, Replica, check_address
from penstock.routing.tokens import (
    Owner,
    admin_token,
    former_admin_token,
    former_replica_token,
    matches,
    may_be_former,
    owner_of,
)
from penstock_serving.gateway.holding import Holding
from penstock_serving.gateway.readiness import Readiness
from penstock_serving.gateway.registry import Registry
from penstock_serving.gateway.settings import Settings

logger = logging.getLogger(__name__)
_LEASE_BYTES = 16 * 1024
"""A lease has six short texts and five numbers."""
_FORMER_LEASE_BYTES = 4 * 1024
"""With a token of a former release, which says only together with the body whether it holds."""
_ROUTES_BYTES = 8 * 1024 * 1024
"""Of the operator's word: a route that names each of a namespace's keys has 1.8 MiB at most."""
_COMPLETION_BYTES = 4 * 1024
_BODY_SECONDS = 10.0
_REST_BYTES, _REST_SECONDS = 256 * 1024, 1.0
"""Of a refused request's body, that are taken so that its sender reads the answer; then the connection ends."""
_SETTLE_SECONDS = 10.0
_SCHEME = "Bearer "
_MOST_COMPLAINTS = 5
_STATUS: Mapping[type[PenstockError], int] = {Invalid: 400, Conflict: 403, Unavailable: 503}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Refused(Exception):
    """The caller may not."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _failure(status: int, message: str) -> web.Response:
    headers = {401: {hdrs.WWW_AUTHENTICATE: "Bearer"}, 503: {hdrs.RETRY_AFTER: "1"}}.get(status, {})
    return web.json_response({"error": message}, status=status, headers=headers)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as JSON."""
    response = await _answer(request, handler)
    if request.content.is_eof() or not request.can_read_body:
        return response
    # What is left of the body would be the next request. Its sender reads the answer rather if some of it is taken.
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    left = _REST_BYTES
    with contextlib.suppress(TimeoutError, web.RequestPayloadError):
        async with asyncio.timeout(_REST_SECONDS):
            while left > 0 and (chunk := await request.content.readany()):
                left -= len(chunk)
    return response


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except _Refused as refused:
        return _failure(refused.status, str(refused))
    except ValidationError as invalid:
        found = invalid.errors(include_url=False, include_context=False, include_input=False)[:_MOST_COMPLAINTS]
        return _failure(400, "; ".join(f"{'.'.join(str(p) for p in e['loc']) or 'body'}: {e['msg']}" for e in found))
    except PenstockError as error:
        return _failure(_STATUS.get(type(error), 500), error.message)
    except web.HTTPException as known:
        return _failure(known.status, known.reason)
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        return _failure(500, "the gateway agent failed; its log says why")


def _json(model: Frozen, status: int = 200) -> web.Response:
    return web.Response(status=status, text=model.model_dump_json(), content_type="application/json")


async def _body(request: web.Request, most: int) -> bytes:
    """The body, of a caller whose token holds. Raises `_Refused`: it is too large, or does not come."""
    too_large = _Refused(413, f"the body has more than {most} bytes")
    if (request.content_length or 0) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise _Refused(408, f"the body did not come within {_BODY_SECONDS:g} s") from None
    return bytes(body)


class ControlServer:
    """Leases from replicas, routes from the operator.

    Args:
        settings: the gateway's.
        registry: what is changed.
        holding: says what waits.
        readiness: of this gateway.
        known: told of each connection on which a token was shown that holds.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        holding: Holding,
        readiness: Readiness,
        known: Callable[[asyncio.BaseTransport | None], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._holding = holding
        self._readiness = readiness
        self._known = known

    def application(self) -> web.Application:
        """The aiohttp application. Its runner must leave bodies as they come, compressed ones too."""
        application = web.Application(middlewares=[_errors])
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
        replica_id = request.match_info["replica_id"]
        owner, lease = await self._lease(request)
        check_replica_id(replica_id)
        if self._settings.own_addresses_only:
            _require_own_address(request.remote, lease.address)
        generation = self._registry.generation
        self._registry.lease(replica_id, lease, owner.uid)
        if generation != self._registry.generation:
            await self._registry.settled(_SETTLE_SECONDS)
        return _json(LeaseGranted(lease_seconds=lease.lease_seconds))

    async def _lease(self, request: web.Request) -> tuple[Owner, ReplicaLease]:
        """A lease, and whose the token is that it came with.

        Raises:
            _Refused: the token does not hold, or the body is too large.
        """
        token = _token(request)
        owner = owner_of(self._settings.secret, token)
        if owner is not None:
            self._known(request.transport)
            lease = ReplicaLease.model_validate_json(await _body(request, _LEASE_BYTES))
            _require(lease.namespace == owner.namespace and lease.model == owner.model)
            return owner, lease
        _require(may_be_former(token) and not self._settings.refuse_former_tokens)
        body = await _body(request, _FORMER_LEASE_BYTES)
        owner = _said_owner(body)
        _require(matches(token, former_replica_token(self._settings.secret, owner.namespace, owner.model)))
        return owner, ReplicaLease.model_validate_json(body)

    async def _delete_replica(self, request: web.Request) -> web.Response:
        found = self._leaving(_token(request), request.match_info["replica_id"])
        self._known(request.transport)
        if found is not None:
            self._registry.release(found.key, found.replica_id)
        # Where it has expired or was never there, what the caller asks for is already so once HAProxy knows it.
        await self._registry.settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    def _leaving(self, token: str, replica_id: str) -> Replica | None:
        """The replica that a token's holder takes out; None where there is none of its own.

        Raises:
            _Refused: the token does not hold, or not for this replica.
        """
        table, secret = self._registry.table, self._settings.secret
        alike = [each for each in table.replicas.values() if each.replica_id == replica_id]
        owner = owner_of(secret, token)
        if owner is not None:
            own = [each for each in alike if each.key == (owner.namespace, owner.model)]
            _require(all(not (owner.uid and each.uid) or owner.uid == each.uid for each in own))
            return next(iter(own), None)
        _require(may_be_former(token) and not self._settings.refuse_former_tokens)
        own = [each for each in alike if matches(token, former_replica_token(secret, *each.key))]
        return next(iter(own), None)

    async def _put_route(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        route = Route.model_validate_json(await _body(request, _ROUTES_BYTES))
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
        routes = RouteSet.model_validate_json(await _body(request, _ROUTES_BYTES)).routes
        self._readiness.told()
        self._registry.add(routes)
        await self._registry.kept(_SETTLE_SECONDS)
        await self._registry.settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    async def _put_complete(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        instance = Completion.model_validate_json(await _body(request, _COMPLETION_BYTES)).instance
        # What was declared without waiting may be under way to HAProxy still.
        await self._registry.settled(_SETTLE_SECONDS)
        self._readiness.completed(instance)
        return web.Response(status=204)

    def _require_admin(self, request: web.Request) -> None:
        token, secret = _token(request), self._settings.secret
        _require(matches(token, admin_token(secret)) or matches(token, former_admin_token(secret)))
        self._known(request.transport)


def _token(request: web.Request) -> str:
    header = request.headers.get(hdrs.AUTHORIZATION, "")
    if not header.startswith(_SCHEME):
        raise _Refused(401, "send the token as 'Authorization: Bearer TOKEN'")
    return header.removeprefix(_SCHEME).strip()


def _require(holds: bool) -> None:  # noqa: FBT001 -- what is required is the whole sentence
    if not holds:
        raise _Refused(403, "the token is not the one for this model or action")


def _said_owner(body: bytes) -> Owner:
    """Whose lease a body says to be, read with the least effort: its token is not known to hold yet."""
    said: Any
    try:
        said = from_json(body)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise _Refused(400, "body: this is no JSON object")
    namespace, model = said.get("namespace"), said.get("model")
    if not isinstance(namespace, str) or not isinstance(model, str):
        raise _Refused(400, "namespace, model: each must be a text")
    return Owner(namespace, model)


def _require_own_address(remote: str | None, address: str) -> None:
    """A tenant could else have its requests sent to another's replica, or to anything that the gateway reaches."""
    claimed = ip_address(check_address(address))
    seen = ip_address(remote) if remote is not None else None
    mapped = seen.ipv4_mapped if isinstance(seen, IPv6Address) else None
    if claimed != (mapped or seen):
        raise _Refused(403, f"a replica may register its own address only: this is {mapped or seen}, not {claimed}")
