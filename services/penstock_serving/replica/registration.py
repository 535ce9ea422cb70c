"""Holding a place behind each gateway: find them, renew the leases, and give them back before leaving.

A gateway's URL may name several (a headless Service of Kubernetes): each of its host's addresses is a gateway of its own,
and the replica holds a lease with every one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Invalid, Unavailable
from penstock.routing.fleet import GATEWAY_WORD, ORDERS, ROOM, SHOWN, UNRUN, Endpoint, endpoints, name_to_resolve
from penstock.routing.leases import (
    MOST_METADATA_CHARACTERS,
    CertificateGranted,
    CertificateRequest,
    ReplicaLease,
    ReplicaRoom,
    ReplicaStats,
    RequestsJoined,
)
from penstock.routing.outcomes import Orders, ReplicaOutcomes
from penstock.routing.tokens import data_token
from penstock.serving.control import ReplicaSettings
from penstock_serving.replica.agents import ask_agent
from penstock_serving.replica.obedience import GatewayOrders

if TYPE_CHECKING:
    from penstock_serving.replica.identity import ReplicaIdentity

logger = logging.getLogger(__name__)

_REQUEST_SECONDS: Final = 3.0
_DELETE_SECONDS: Final = 5.0
_RESOLVE_SECONDS: Final = 5.0
"""How long to wait for an answer about a name, and the longest time between two questions."""
_RENEWALS_IN_LEASE: Final = 3
_DESCRIBED_SECONDS: Final = 60.0
"""How often a gateway is told the metadata again: it may have been started anew between two renewals."""
_SHOWS: Final = GATEWAY_WORD.encode()
_ROOM: Final = ROOM.encode()
_ORDERS: Final = ORDERS.encode()
_SHOWN: Final = SHOWN.encode()
_UNRUN: Final = UNRUN.encode()
_OF_POLICY: Final = {"interval_seconds": 0.0, "full_share": 0.0}
"""What no gateway needs, and one of a former release would refuse."""
_ORDERED_SECONDS: Final = 1.5
"""The longest time between two renewals while a gateway orders outcomes, which are to be of the last two seconds."""

Resolve = Callable[[str], Awaitable[tuple[str, ...]]]
"""From a host's name to its IP addresses. Raises `OSError` where it has none."""


async def resolve(host: str) -> tuple[str, ...]:
    """A host's IP addresses, as the system finds them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(str(each[4][0]) for each in found)


class Leases:
    """One renewing task for each gateway, and one for each URL that looks which gateways there are.

    Args:
        settings: the replica's.
        address: host:port that requests are to be sent to.
        digest: of the model that it loaded.
        stats: what it reports with each renewal.
        find: asked about each URL whose host is a name.
        metadata: of the model, for when no replica is left to ask.
        joining: whether requests are joined now.
        showing: told whether every gateway shows the model's token with each request, as often as that changes.
        room: how much it takes at once from each of so many gateways.
        identity: by which gateways know it; None: it speaks no TLS.
        on_orders: told what gateways order, as often as that changes; None: nothing.
        outcomes: what is told to a gateway that orders it.
    """

    def __init__(
        self,
        settings: ReplicaSettings,
        address: str,
        digest: str,
        stats: Callable[[], ReplicaStats],
        find: Resolve = resolve,
        *,
        metadata: str = "",
        joining: Callable[[], RequestsJoined | None] = lambda: None,
        showing: Callable[[bool], None] = lambda _: None,
        room: Callable[[int], ReplicaRoom | None] = lambda _: None,
        identity: ReplicaIdentity | None = None,
        on_orders: Callable[[Orders | None], None] = lambda _: None,
        outcomes: Callable[[], ReplicaOutcomes | None] = lambda: None,
    ) -> None:
        self._identity = identity
        self._orders = GatewayOrders(on_orders)
        self._outcomes = outcomes
        # A former release's token lets leases be no longer than that release's were, so there is no room for outcomes.
        self._may_obey = bool(data_token(settings.registration_token))
        self._room = room
        self._tell_showing = showing
        self._showing: dict[Endpoint, bool] = {}
        self._settings = settings
        self._address = address
        self._digest = digest
        self._stats = stats
        self._metadata = metadata if 0 < len(metadata) <= MOST_METADATA_CHARACTERS else None
        self._joining = joining
        self._find = find
        self._renewing: dict[Endpoint, asyncio.Task[None]] = {}
        self._unresolved: set[str] = set()
        self.registered = asyncio.Event()
        """Set once a first gateway has taken this replica."""
        self._following = [
            asyncio.create_task(self._follow(url), name=f"gateways of {url}") for url in settings.gateways
        ]

    async def leave(self) -> None:
        """Stop renewing and take this replica out of every gateway. Returns once they send no new request."""
        held = tuple(self._renewing)
        tasks = (*self._following, *self._renewing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(self._delete(each) for each in held))

    async def _follow(self, url: str) -> None:
        """Hold a lease with each gateway that a URL stands for, for ever.

        One whose address is gone is renewed for one lease's time more, so that a gap in an answer costs nothing.
        """
        host = name_to_resolve(url)
        seen: dict[Endpoint, float] = {}
        clock = asyncio.get_running_loop().time
        while True:
            now = clock()
            for each in await self._gateways(url, host, tuple(seen)):
                seen[each] = now
                if each not in self._renewing:
                    task = asyncio.create_task(self._renew(each), name=f"lease {each.base_url}")
                    self._renewing[each] = task
            if host is None:
                return
            for each, last in tuple(seen.items()):
                if now - last > self._settings.lease_seconds:
                    del seen[each]
                    self._renewing.pop(each).cancel()
                    self._orders.drop(each)
                    if self._showing.pop(each, None) is False:
                        self._tell_showing(all(self._showing.values()))
                    logger.info("gateway %s is gone", each.base_url)
            # Spread, so that replicas that started together do not ask together.
            shortest = min(_RESOLVE_SECONDS, self._settings.lease_seconds) / 2
            await asyncio.sleep(shortest * (1 + random.random()))  # noqa: S311 -- guards nothing

    async def _gateways(self, url: str, host: str | None, last: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """The gateways behind a URL; those last known where its name cannot be resolved now."""
        if host is None:
            return endpoints(url, ())
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = endpoints(url, await self._find(host))
        except (OSError, TimeoutError) as error:
            if host not in self._unresolved:
                self._unresolved.add(host)
                problem = str(error) or type(error).__name__
                logger.warning("cannot resolve %s: %s; keeping its %d known gateways", host, problem, len(last))
            return last
        self._unresolved.discard(host)
        return found

    async def _renew(self, gateway: Endpoint) -> None:
        held = None
        describe_at = ends_at = 0.0
        features: frozenset[bytes] = frozenset()
        clock = asyncio.get_running_loop().time
        while True:
            describes = clock() >= describe_at
            try:
                await self._certify(gateway)
                async with asyncio.timeout(_REQUEST_SECONDS):
                    obeys = self._may_obey and _ORDERS in features
                    lease = self._lease(gateway, features, describes=describes, obeys=obeys)
                    status, features, answer = await self._call("PUT", gateway, lease)
                if status == HTTPStatus.OK:
                    ends_at = clock() + self._settings.lease_seconds
                    if obeys:
                        self._orders.take(gateway, answer)
                    else:
                        self._orders.drop(gateway)
                shows = _SHOWS in features
                if status == HTTPStatus.OK and self._showing.get(gateway) is not shows:
                    self._showing[gateway] = shows
                    self._tell_showing(all(self._showing.values()))
                if describes and status in (HTTPStatus.OK, HTTPStatus.BAD_REQUEST):
                    # A gateway of an earlier release refuses what it does not know.
                    describe_at = clock() + _DESCRIBED_SECONDS if status == HTTPStatus.OK else math.inf
                problem = "" if status < 300 else f"HTTP {status} {answer[:200]}"  # noqa: PLR2004 -- HTTP's success
            except (OSError, TimeoutError, Invalid, Unavailable) as error:
                problem = str(error) or type(error).__name__
            if held is not (not problem):
                held = not problem
                if held:
                    self.registered.set()
                    logger.info("gateway %s sends requests here", gateway.base_url)
                else:
                    logger.warning("gateway %s does not take this replica: %s; trying on", gateway.base_url, problem)
            if clock() > ends_at:
                self._orders.drop(gateway)
            longest = _ORDERED_SECONDS if self._orders.orders_outcomes(gateway) else math.inf
            await asyncio.sleep(min(self._settings.lease_seconds / _RENEWALS_IN_LEASE, longest))

    async def _certify(self, gateway: Endpoint) -> None:
        """Have a certificate before requests are asked for, and a new one well before it ends.

        Raises:
            OSError: the gateway cannot be reached, or is none of the platform's.
            TimeoutError: it does not answer.
            Invalid: its certificate is of no use.
            Unavailable: it grants none.
        """
        identity = self._identity
        if identity is None or not identity.due:
            return
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                await identity.renew(lambda request: self._ask_certificate(gateway, request))
        except (OSError, TimeoutError, Invalid, Unavailable) as error:
            if not identity.holds:
                raise
            logger.warning("gateway %s grants no new certificate: %s; trying on", gateway.base_url, error)

    async def _ask_certificate(self, gateway: Endpoint, request: str) -> CertificateGranted:
        asked = CertificateRequest(namespace=self._settings.namespace, model=self._settings.model, request=request)
        body = asked.model_dump_json().encode()
        status, _, answer = await self._call("POST", gateway, body, "/certificate")
        if status != HTTPStatus.OK:
            raise Unavailable(Reason.GATEWAY_UNREACHABLE, f"it grants no certificate: HTTP {status} {answer[:200]}")
        try:
            return CertificateGranted.model_validate_json(answer)
        except ValidationError as error:
            raise Invalid("InvalidCertificate", f"it answers with no certificate: {error}") from error

    async def _delete(self, gateway: Endpoint) -> None:
        try:
            async with asyncio.timeout(_DELETE_SECONDS):
                status, _, answer = await self._call("DELETE", gateway, b"")
        except (OSError, TimeoutError, Unavailable) as error:
            logger.warning("could not leave gateway %s: %s; the lease will end by itself", gateway.base_url, error)
            return
        if status >= 300:  # noqa: PLR2004 -- HTTP's success
            logger.warning("could not leave gateway %s: HTTP %d %s", gateway.base_url, status, answer[:200])

    def _lease(self, gateway: Endpoint, features: frozenset[bytes], *, describes: bool, obeys: bool) -> bytes:
        settings, stats, knows_shown = self._settings, self._stats(), _SHOWN in features
        outcomes = self._outcomes() if obeys and self._orders.orders_outcomes(gateway) else None
        if outcomes is not None:
            outcomes = outcomes.downgrade(knows_shown=knows_shown, knows_unrun=_UNRUN in features)
        lease = ReplicaLease(
            namespace=settings.namespace,
            model=settings.model,
            version=settings.version,
            revision=settings.revision,
            digest=self._digest,
            address=self._address,
            lease_seconds=settings.lease_seconds,
            stats=stats.model_copy(update={**_OF_POLICY, **({} if obeys else {"capacity": 0.0})}),
            metadata=self._metadata if describes else None,
            joining=self._joining() if describes else None,
            room=self._room(len(self._renewing)) if _ROOM in features else None,
            encrypted=True if self._identity is not None else None,
            obeys=obeys,
            outcomes=outcomes,
            features=(SHOWN,) if obeys and knows_shown else (),
        )
        # A gateway of an earlier release refuses what it does not know, though it be null.
        return lease.model_dump_json(exclude_none=True).encode()

    async def _call(
        self, method: str, gateway: Endpoint, body: bytes, about: str = ""
    ) -> tuple[int, frozenset[bytes], str]:
        path = f"/v1/replicas/{quote(self._settings.replica_id, safe='')}{about}"
        trust = None if self._identity is None else self._identity.trust
        return await ask_agent(method, gateway, path, self._settings.registration_token, body, trust=trust)
