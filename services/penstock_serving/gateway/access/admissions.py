"""Tokens that were verified a moment ago: HAProxy lets them in by their hash, without asking again."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping

from penstock.routing.access import Admitted, RouteIssuer
from penstock.routing.table import ModelKey

PER_NAMESPACE = 4096
SPACING_SECONDS = 0.25
"""HAProxy is told of tokens this seldom, however many there are: each telling costs the agent's time, and a tenant with an
issuer of its own can have a thousand verified a second. Until then the agent lets them in itself.
"""


class Admissions:
    """A bounded number for each namespace: one namespace's tokens never put out another's. Belongs to one event loop.

    Args:
        bound: tokens of a namespace at most; the oldest goes first.
        clock: monotonic, in seconds.
        pause: waits for so many seconds.
    """

    def __init__(
        self,
        bound: int = PER_NAMESPACE,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._bound = bound
        self._clock = clock
        self._pause = pause
        self._tokens: dict[str, OrderedDict[tuple[str, str], Admitted]] = {}
        self._untold = asyncio.Event()
        self._told_at = float("-inf")

    def admit(self, key: ModelKey, digest: str, token: Admitted) -> None:
        """Let a token in.

        Args:
            key: the model that it opens.
            digest: the token's SHA-256.
            token: what was found.
        """
        namespace, model = key
        tokens = self._tokens.setdefault(namespace, OrderedDict())
        tokens[model, digest] = token
        tokens.move_to_end((model, digest))
        while len(tokens) > self._bound:
            tokens.popitem(last=False)
        self._untold.set()

    def find(self, key: ModelKey, digest: str, issuers: tuple[RouteIssuer, ...], now: float) -> Admitted | None:
        """A token that was let in and holds still, so that it need not be verified again until HAProxy knows it.

        Args:
            key: the model that it is to open.
            digest: its SHA-256.
            issuers: of the model now; where they were others, the token is to be verified anew.
            now: epoch seconds.
        """
        namespace, model = key
        tokens = self._tokens.get(namespace)
        found = None if tokens is None else tokens.get((model, digest))
        return found if found is not None and found.until > now and found.issuers == issuers else None

    async def wait_for_news(self) -> None:
        """Wait until HAProxy is to be told of tokens: at once, but for the time since it was told last."""
        await self._untold.wait()
        await self._pause(max(0.0, self._told_at + SPACING_SECONDS - self._clock()))

    def collect(self, now: float) -> Mapping[tuple[str, str, str], Admitted]:
        """What HAProxy is told now: those that hold still, by namespace, model and SHA-256; the others are forgotten.

        Args:
            now: epoch seconds.
        """
        self._untold.clear()
        self._told_at = self._clock()
        for namespace, tokens in list(self._tokens.items()):
            for each in [each for each, token in tokens.items() if token.until <= now]:
                del tokens[each]
            if not tokens:
                del self._tokens[namespace]
        return {
            (namespace, model, digest): token
            for namespace, tokens in self._tokens.items()
            for (model, digest), token in tokens.items()
        }
