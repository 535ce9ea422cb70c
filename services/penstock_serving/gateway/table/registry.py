"""The agent's table: changed by leases and routes, watched by what must follow it, its routes kept on disk."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from penstock.errors import Invalid, Unavailable
from penstock.routing.access import RouteAccess
from penstock.routing.keys import KeyChange, KeyInterner, KeySet
from penstock.routing.leases import ReplicaLease, ReplicaRoom, Route
from penstock.routing.table import ModelKey, Table, replica_key
from penstock.routing.validation import check_model
from penstock_serving.gateway.access.keyring import Keyring
from penstock_serving.gateway.holding.descriptions import Descriptions
from penstock_serving.gateway.table.keeping import load_routes, save_routes

logger = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0


class Registry:
    """The current table. Belongs to one event loop.

    Args:
        path: where routes are kept.
        rest_seconds: how long a request may be under way to a version that has left.
    """

    def __init__(self, path: Path, rest_seconds: float = 600.0) -> None:
        self._path = path
        self._table = replace(load_routes(path), rest_seconds=rest_seconds)
        self._interned: dict[str, KeyInterner] = {}
        for route in self._table.routes.values():
            if (kept := self._intern_keys(route)) is not route:
                self._table = self._table.with_route(kept)
        self._keyring = Keyring()
        self.descriptions = Descriptions()
        """Metadata of models, those without replicas among them."""
        self._generation = 0
        self._settled = -1
        self._turning: dict[ModelKey, int] = {}
        """Models whose requests are to go another way, and the generation that says so."""
        self._changed = asyncio.Event()
        self._settling = asyncio.Event()
        self._stored = self._kept = 0
        self._storing = asyncio.Event()
        self._keeping = asyncio.Event()

    @property
    def table(self) -> Table:
        """Leases and routes as they are."""
        return self._table

    @property
    def keyring(self) -> Keyring:
        """Which keys open what, by the routes as they are."""
        self._keyring.follow(self._table.routes, self._table.told_keys)
        return self._keyring

    @property
    def generation(self) -> int:
        """Counts the changes to where requests go."""
        return self._generation

    @property
    def turning(self) -> Collection[ModelKey]:
        """Models whose requests do not yet go as was declared."""
        return self._turning

    @property
    def taken(self) -> bool:
        """Whether HAProxy has ever held what the table said."""
        return self._settled >= 0

    def now(self) -> float:
        """The clock of the leases, in seconds."""
        return time.monotonic()

    def lease(self, replica_id: str, lease: ReplicaLease, uid: str = "") -> None:
        """Begin or renew a lease.

        Args:
            replica_id: one of the model's.
            lease: what the replica says.
            uid: of the deployment that its token is of.

        Raises:
            Invalid: the lease is malformed.
            Conflict: the token is of a former deployment of this name.
            Unavailable: the model had too many versions lately.
        """
        described = lease.metadata
        if described is not None:
            lease = lease.model_copy(update={"metadata": None})
        own = replica_key((lease.namespace, lease.model), replica_id)
        before = self._table.replicas.get(own)
        self._table = self._table.with_lease(replica_id, lease, self.now(), uid)
        if described is not None:
            self.descriptions.keep((lease.namespace, lease.model), lease.version, described)
        if before is None or (_place(before.lease), before.uid) != (_place(self._table.replicas[own].lease), uid):
            self._announce()

    def release(self, key: ModelKey, replica_id: str) -> None:
        """End a lease."""
        self._table = self._table.without_replica(key, replica_id, self.now())
        self._announce()

    def declare(self, route: Route) -> None:
        """Declare a route; `wait_until_stored` waits until it is on disk.

        Raises:
            Invalid: the route is malformed.
        """
        key = route.namespace, route.model
        before = self._table.routes.get(key)
        route = self._intern_keys(route)
        if before != route:
            self._store(self._table.with_route(route), goes_on=before is not None and _goes_as(before, route))
            if before is None or (before.revisions, before.digests) != (route.revisions, route.digests):
                self._turning[key] = self._generation

    def close(self, key: ModelKey) -> None:
        """Let nobody ask a model of which something was said that could not be taken: it may have been who may not."""
        route = self._table.routes.get(key)
        if route is not None and route.access is not None and route.access.required:
            logger.error("%s/%s lets nobody in until what is said of it can be taken", *key)
            nobody = RouteAccess(required=True, requests_per_second=route.access.requests_per_second)
            self._store(self._table.with_route(route.model_copy(update={"access": nobody})))

    def change_keys(self, change: KeyChange) -> None:
        """Take over what became of a namespace's keys. Where it cannot be taken, none of them counts until it can.

        Raises:
            Conflict: others are known here; all are to be told anew.
            Invalid: they are not what is said, or too many.
        """
        check_model(change.namespace, change.namespace)
        before = self._table.told_keys.get(change.namespace, KeySet())
        try:
            after = before.apply(change)
        except Invalid:
            self.lock_keys(change.namespace)
            raise
        if after.digest != before.digest:
            self._store(self._table.with_keys(change.namespace, after))

    def lock_keys(self, namespace: str) -> None:
        """Let no key of a namespace count: something was said of them that could not be taken."""
        if self._table.told_keys.get(namespace, KeySet()).digest:
            logger.error("no key of %s counts until what is said of them can be taken", namespace)
            self._store(self._table.with_keys(namespace, KeySet()))

    def forget_keys(self, namespace: str) -> None:
        """Forget what was told of a namespace's keys: it has none, or is gone."""
        if namespace in self._table.told_keys:
            self._store(self._table.with_keys(namespace, None))

    def _intern_keys(self, route: Route) -> Route:
        """The route, its keys kept once for all routes of the namespace that name them."""
        if route.access is None or not route.access.keys:
            return route
        interned = self._interned.setdefault(route.namespace, KeyInterner())
        keys = interned(route.access.keys)
        key = route.namespace, route.model
        others = (
            each.access.keys
            for name, each in self._table.routes.items()
            if name[0] == route.namespace and name != key and each.access is not None
        )
        interned.prune([keys, *others])
        return route.model_copy(update={"access": route.access.model_copy(update={"keys": keys})})

    def add(self, routes: Iterable[Route]) -> None:
        """Declare those routes whose models have none yet; `wait_until_stored` waits until they are on disk.

        Raises:
            Invalid: a route is malformed; then none is declared.
        """
        table = self._table
        for route in routes:
            if (route.namespace, route.model) not in table.routes:
                table = table.with_route(self._intern_keys(route))
        if table is not self._table:
            self._store(table)

    def withdraw(self, key: ModelKey) -> None:
        """Forget a route."""
        if key in self._table.routes:
            self._turning.pop(key, None)
            self.descriptions.forget(key)
            self._store(self._table.without_route(key))
            if not any(namespace == key[0] for namespace, _ in self._table.routes):
                self._interned.pop(key[0], None)

    def expire(self) -> None:
        """Drop leases that have ended."""
        left = self._table.without_expired(self.now())
        if left is not self._table:
            gone = sorted(set(self._table.replicas) - set(left.replicas))
            logger.warning("leases ended without renewal: %s", ", ".join(gone))
            self._table = left
            self._announce()

    async def wait_for_change(self, since: int, timeout_seconds: float) -> None:
        """Wait for a change after the generation `since`, or the timeout."""
        if self._generation == since:
            await _wait(self._changed, timeout_seconds)

    def settle(self, generation: int) -> None:
        """HAProxy now holds what the table said at this generation."""
        self._settled = max(self._settled, generation)
        self._turning = {key: since for key, since in self._turning.items() if since > self._settled}
        event, self._settling = self._settling, asyncio.Event()
        event.set()

    async def wait_until_settled(self, timeout_seconds: float) -> None:
        """Wait until HAProxy holds what the table says now.

        Raises:
            Unavailable: it did not within the timeout.
        """
        wanted = self._generation
        deadline = self.now() + timeout_seconds
        while self._settled < wanted:
            left = deadline - self.now()
            if left <= 0:
                raise Unavailable("HaproxyUnreachable", "the change is recorded, but HAProxy has not taken it yet")
            await _wait(self._settling, left)

    async def store_routes(self) -> None:
        """Write changed routes to disk, for ever. What changes while one writing is under way is written by the next."""
        while True:
            if self._stored == self._kept:
                await _wait(self._storing, _LOOK_SECONDS)
                continue
            version, table = self._stored, self._table
            try:
                await asyncio.to_thread(save_routes, self._path, table)
            except OSError as error:
                logger.error("cannot keep the routes: %s; trying again", error)  # noqa: TRY400 -- the sentence says it
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            self._kept = version
            event, self._keeping = self._keeping, asyncio.Event()
            event.set()

    async def wait_until_stored(self, timeout_seconds: float) -> None:
        """Wait until the routes as they are now are on disk.

        Raises:
            Unavailable: they are not within the timeout.
        """
        wanted, deadline = self._stored, self.now() + timeout_seconds
        while self._kept < wanted:
            left = deadline - self.now()
            if left <= 0:
                raise Unavailable("RoutesNotKept", "the change holds, but could not be written to disk yet")
            await _wait(self._keeping, left)

    def _store(self, table: Table, *, goes_on: bool = False) -> None:
        """Take a table, and have its routes written; requests go on as they did, or that is announced, too."""
        self._table = table
        self._stored += 1
        event, self._storing = self._storing, asyncio.Event()
        event.set()
        if not goes_on:
            self._announce()

    def _announce(self) -> None:
        self._generation += 1
        event, self._changed = self._changed, asyncio.Event()
        event.set()


def _goes_as(before: Route, route: Route) -> bool:
    """Whether all that differs is what replicas are told to count: HAProxy has no part in that."""
    sticky = [each.comparison is not None and each.comparison.sticky for each in (before, route)]
    return sticky[0] == sticky[1] and before == route.model_copy(update={"comparison": before.comparison})


def _place(lease: ReplicaLease) -> tuple[str, str, str, str, ReplicaRoom | None, bool | None]:
    return lease.address, lease.version, lease.revision, lease.digest, lease.room, lease.encrypted


async def _wait(event: asyncio.Event, timeout_seconds: float) -> None:
    try:
        async with asyncio.timeout(timeout_seconds):
            await event.wait()
    except TimeoutError:
        return
