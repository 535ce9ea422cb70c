"""Requests that wait for a replica: how many, how large, and who wakes their model."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import aiohttp

from penstock.errors import Invalid, Unavailable
from penstock.routing.table import ModelKey
from penstock_serving.gateway.lookups import charge_lookups_to
from penstock_serving.gateway.services import alias_of
from penstock_serving.gateway.table.registry import Registry

logger = logging.getLogger(__name__)
_FIRST_BACKOFF_SECONDS = 0.25
_LONGEST_BACKOFF_SECONDS = 5.0
_WAKE_TIMEOUT_SECONDS = 60.0
DEFAULT_HOLD_SECONDS = 120.0
DEFAULT_HELD_REQUESTS = 1024


class MemoryShares:
    """An amount shared among namespaces: each may hold as much as is free for others."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._taken: Counter[str] = Counter()

    def take(self, namespace: str, amount: int) -> bool:
        """Take an amount; False where that would leave less free than the namespace has."""
        if self._taken[namespace] + amount > self._free - amount:
            return False
        self._taken[namespace] += amount
        self._free -= amount
        return True

    def give_back(self, namespace: str, amount: int) -> None:
        """Give back what was taken."""
        self._free += amount
        self._taken[namespace] -= amount
        if not self._taken[namespace]:
            del self._taken[namespace]


class Holding:
    """Counts what waits, within bounds, and wakes each waited-for model once at a time.

    Memory and places are shared such that no namespace can fill them: each may take as much as is left free after it
    (dynamic thresholds, Choudhury and Hahne 1998). One that floods gets half, and who comes next always finds room.

    Args:
        registry: what is known of models.
        session: for waking them.
        max_held_bytes: of bodies, over all namespaces.
        max_held_requests: that wait, over all namespaces.
    """

    def __init__(
        self, registry: Registry, session: aiohttp.ClientSession, max_held_bytes: int, max_held_requests: int
    ) -> None:
        self._registry = registry
        self._session = session
        self._bytes = MemoryShares(max_held_bytes)
        self._places = MemoryShares(max_held_requests)
        self._waiting: Counter[ModelKey] = Counter()
        self._wakes: dict[ModelKey, asyncio.Task[None]] = {}

    def count_waiting(self) -> dict[ModelKey, int]:
        """Requests that wait now, by model."""
        return {key: count for key, count in self._waiting.items() if count}

    @contextmanager
    def body(self, namespace: str) -> Iterator[Body]:
        """A request's share of the memory; given back at the end."""
        body = Body(self, namespace)
        try:
            yield body
        finally:
            self._bytes.give_back(namespace, len(body.data))

    @contextmanager
    def reserve(self, namespace: str, size: int) -> Iterator[None]:
        """Bytes of the namespace's share of the memory, for an answer on its way.

        Raises:
            Unavailable: the share is used up.
        """
        self.grow(namespace, size)
        try:
            yield
        finally:
            self._bytes.give_back(namespace, size)

    def grow(self, namespace: str, size: int) -> None:
        """Reserve bytes.

        Raises:
            Unavailable: the namespace's share is used up.
        """
        if not self._bytes.take(namespace, size):
            raise Unavailable("TooManyHeld", f"too many bytes of namespace '{namespace}' wait at the gateway")

    @contextmanager
    def place(self, key: ModelKey) -> Iterator[None]:
        """A place among the model's waiting requests; while one is taken, the model is woken.

        Raises:
            Unavailable: all places are taken.
        """
        route = self._registry.table.routes.get(key)
        bound = route.max_held_requests if route is not None else DEFAULT_HELD_REQUESTS
        if self._waiting[key] >= bound:
            message = f"{bound} requests already wait for model '{key[1]}' in namespace '{key[0]}'"
            raise Unavailable("TooManyHeld", message)
        if not self._places.take(key[0], 1):
            raise Unavailable("TooManyHeld", f"too many requests of namespace '{key[0]}' wait for replicas to start")
        self._waiting[key] += 1
        if key not in self._wakes:
            self._wakes[key] = asyncio.create_task(self._wake(key), name=f"wake {key[0]}/{key[1]}")
        try:
            yield
        finally:
            self._waiting[key] -= 1
            self._places.give_back(key[0], 1)
            if not self._waiting[key]:
                del self._waiting[key]
                if (wake := self._wakes.pop(key, None)) is not None:
                    wake.cancel()

    async def _wake(self, key: ModelKey) -> None:
        """Ask for a replica again and again; ended by the last waiting request."""
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            route = self._registry.table.routes.get(key)
            if route is not None and route.wake_url is not None:
                with charge_lookups_to(key[0]):
                    await self._ask(key, route.wake_url)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)

    async def _ask(self, key: ModelKey, url: str) -> None:
        timeout = aiohttp.ClientTimeout(total=_WAKE_TIMEOUT_SECONDS)
        try:
            alias = await alias_of(urlsplit(url).hostname or "")
            if alias is not None:
                logger.warning("%s/%s is not woken: %s is an alias of %s", *key, url, alias)
                return
            async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
                logger.info("woke %s/%s: status %d", *key, response.status)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            logger.warning("waking %s/%s by %s failed: %r", *key, url, error)


class Body:
    """A request's body as it arrives, within the bounds of what may be held."""

    def __init__(self, holding: Holding, namespace: str) -> None:
        self._holding = holding
        self._namespace = namespace
        self.data = bytearray()

    async def read(self, stream: aiohttp.StreamReader, limit: int) -> None:
        """Read it all.

        Raises:
            Unavailable: too much is held.
            Invalid: the body is larger than the limit in bytes.
        """
        async for chunk in stream.iter_chunked(65536):
            if len(self.data) + len(chunk) > limit:
                raise Invalid("BodyTooLarge", f"the body is larger than {limit} bytes")
            self._holding.grow(self._namespace, len(chunk))
            self.data += chunk
