"""The control API of `penstock.routing.leases`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import from_json

from penstock.errors import Invalid, Unavailable
from penstock.models import Frozen
from penstock.routing.access import MAX_KEYS, RouteAccess
from penstock.routing.fleet import FEATURES, FEATURES_HEADER, downgrade_route
from penstock.routing.keys import MOST_KEY_BYTES, KeyChange, KeyDigests
from penstock.routing.leases import (
    ASK_JOINING,
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
    TokenSubject,
    admin_token,
    former_admin_token,
    former_replica_token,
    matches,
    may_be_former,
    subject_of,
)
from penstock_serving.gateway.control.callers import (
    RequestRefused,
    claimed_subject,
    error_middleware,
    read_body,
    require,
    token_of,
)
from penstock_serving.gateway.holding.waiting import Holding
from penstock_serving.gateway.readiness import Readiness
from penstock_serving.gateway.settings import GatewaySettings
from penstock_serving.gateway.table.registry import Registry

_LEASE_BYTES = 64 * 1024
"""A lease has six short texts, five numbers, and at times the metadata of its model, quoted."""
_FORMER_LEASE_BYTES = 4 * 1024
"""With a token of a former release, which says only together with the body whether it holds."""
_ROUTES_BYTES = 8 * 1024 * 1024
"""Of the operator's word: a route that names each of a namespace's keys has 1.8 MiB at most."""
_KEYS_BYTES = MAX_KEYS * MOST_KEY_BYTES + 64 * 1024
"""As long as a namespace's keys can be: word of a key that was taken away is never too long to be taken."""
_COMPLETION_BYTES = 4 * 1024
_SETTLE_SECONDS = 10.0


def _json(model: Frozen, status: int = 200) -> web.Response:
    return web.Response(status=status, text=model.model_dump_json(), content_type="application/json")


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
        settings: GatewaySettings,
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
        application = web.Application(middlewares=[error_middleware])
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
                web.get("/v1/keys", self._get_keys),
                web.put("/v1/keys/{namespace}", self._put_keys),
                web.delete("/v1/keys/{namespace}", self._delete_keys),
            ]
        )
        return application

    async def _put_replica(self, request: web.Request) -> web.Response:
        replica_id = request.match_info["replica_id"]
        subject, lease = await self._read_lease(request)
        check_replica_id(replica_id)
        if self._settings.own_addresses_only:
            _require_own_address(request.remote, lease.address)
        generation = self._registry.generation
        self._registry.lease(replica_id, lease, subject.uid)
        if generation != self._registry.generation:
            await self._registry.wait_until_settled(_SETTLE_SECONDS)
        granted = _json(LeaseGranted(lease_seconds=lease.lease_seconds))
        granted.headers[FEATURES_HEADER] = " ".join(sorted(FEATURES))
        return granted

    async def _read_lease(self, request: web.Request) -> tuple[TokenSubject, ReplicaLease]:
        """A lease, and whose the token is that it came with.

        Raises:
            RequestRefused: the token does not hold, or the body is too large.
        """
        token = token_of(request)
        subject = subject_of(self._settings.secret, token)
        if subject is not None:
            self._known(request.transport)
            lease = ReplicaLease.model_validate_json(await read_body(request, _LEASE_BYTES))
            require(lease.namespace == subject.namespace and lease.model == subject.model)
            return subject, lease
        require(may_be_former(token) and not self._settings.refuse_former_tokens)
        body = await read_body(request, _FORMER_LEASE_BYTES)
        subject = claimed_subject(body)
        require(matches(token, former_replica_token(self._settings.secret, subject.namespace, subject.model)))
        return subject, ReplicaLease.model_validate_json(body)

    async def _delete_replica(self, request: web.Request) -> web.Response:
        found = self._find_leaving(token_of(request), request.match_info["replica_id"])
        self._known(request.transport)
        if found is not None:
            self._registry.release(found.key, found.replica_id)
        # Where it has expired or was never there, what the caller asks for is already so once HAProxy knows it.
        await self._registry.wait_until_settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    def _find_leaving(self, token: str, replica_id: str) -> Replica | None:
        """The replica that a token's holder takes out; None where there is none of its own.

        Raises:
            RequestRefused: the token does not hold, or not for this replica.
        """
        table, secret = self._registry.table, self._settings.secret
        alike = [each for each in table.replicas.values() if each.replica_id == replica_id]
        subject = subject_of(secret, token)
        if subject is not None:
            own = [each for each in alike if each.key == (subject.namespace, subject.model)]
            require(all(not (subject.uid and each.uid) or subject.uid == each.uid for each in own))
            return next(iter(own), None)
        require(may_be_former(token) and not self._settings.refuse_former_tokens)
        own = [each for each in alike if matches(token, former_replica_token(secret, *each.key))]
        return next(iter(own), None)

    async def _put_route(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        named = request.match_info["namespace"], request.match_info["model"]
        body = b""
        try:
            body = await read_body(request, _ROUTES_BYTES)
            route = Route.model_validate_json(body)
            _require_same("InvalidRoute", "/".join(named), f"{route.namespace}/{route.model}")
            self._readiness.note_declaration()
            self._registry.declare(route)
        except (RequestRefused, ValidationError, Invalid):
            self._take_access_or_close(named, body)
            await self._wait_until_closed()
            raise
        await self._registry.wait_until_stored(_SETTLE_SECONDS)
        if ASYNCHRONOUS in request.headers.get(PREFER, ""):
            return _json(self._downgrade(request, self._route_status(named)), status=202)
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

    async def _put_keys(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        namespace = request.match_info["namespace"]
        try:
            change = KeyChange.model_validate_json(await read_body(request, _KEYS_BYTES))
            _require_same("InvalidKeys", namespace, change.namespace)
            self._registry.change_keys(change)
        except (RequestRefused, ValidationError, Invalid):
            self._registry.lock_keys(namespace)
            await self._wait_until_closed()
            raise
        await self._registry.wait_until_stored(_SETTLE_SECONDS)
        await self._registry.wait_until_settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    async def _delete_keys(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        self._registry.forget_keys(request.match_info["namespace"])
        await self._registry.wait_until_stored(_SETTLE_SECONDS)
        await self._registry.wait_until_settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    async def _get_keys(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        return _json(KeyDigests(digests={name: keys.digest for name, keys in self._registry.table.told_keys.items()}))

    def _route_status(self, key: ModelKey) -> RouteStatus:
        held, settled = self._holding.waiting().get(key, 0), key not in self._registry.turning
        return self._registry.table.status(key, held, self._registry.now(), settled=settled)

    async def _delete_route(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        self._registry.withdraw((request.match_info["namespace"], request.match_info["model"]))
        await self._registry.wait_until_stored(_SETTLE_SECONDS)
        await self._registry.wait_until_settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    async def _get_routes(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        table, now, waiting = self._registry.table, self._registry.now(), self._holding.waiting()
        statuses = table.statuses(waiting, now, self._registry.turning, joining=ASK_JOINING in request.query)
        listed = _json(RouteList(url=self._settings.url, routes=[self._downgrade(request, each) for each in statuses]))
        listed.headers.update(self._readiness.state.headers())
        return listed

    def _downgrade(self, request: web.Request, status: RouteStatus) -> RouteStatus:
        """How a route stands, in words that the asking operator knows: one of a former release refuses any others."""
        if status.declared is None:
            return status
        known = request.headers.get(FEATURES_HEADER, "").split()
        return status.model_copy(update={"declared": downgrade_route(known, status.declared)})

    async def _head_routes(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        return web.Response(headers=self._readiness.state.headers())

    async def _add_routes(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        routes = RouteSet.model_validate_json(await read_body(request, _ROUTES_BYTES)).routes
        self._readiness.note_declaration()
        self._registry.add(routes)
        await self._registry.wait_until_stored(_SETTLE_SECONDS)
        await self._registry.wait_until_settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    async def _put_complete(self, request: web.Request) -> web.Response:
        self._require_admin(request)
        instance = Completion.model_validate_json(await read_body(request, _COMPLETION_BYTES)).instance
        # What was declared without waiting may be under way to HAProxy still.
        await self._registry.wait_until_settled(_SETTLE_SECONDS)
        self._readiness.note_completion(instance)
        return web.Response(status=204)

    def _require_admin(self, request: web.Request) -> None:
        token, secret = token_of(request), self._settings.secret
        require(matches(token, admin_token(secret)) or matches(token, former_admin_token(secret)))
        self._known(request.transport)


def _require_same(reason: str, named: str, said: str) -> None:
    if named != said:
        raise Invalid(reason, f"the path names {named}, the body {said}")


def _require_own_address(remote: str | None, address: str) -> None:
    """A tenant could else have its requests sent to another's replica, or to anything that the gateway reaches."""
    claimed = ip_address(check_address(address))
    seen = ip_address(remote) if remote is not None else None
    mapped = seen.ipv4_mapped if isinstance(seen, IPv6Address) else None
    if claimed != (mapped or seen):
        raise RequestRefused(
            403, f"a replica may register its own address only: this is {mapped or seen}, not {claimed}"
        )
