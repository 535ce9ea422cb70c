"""The public keys of token issuers: found by OpenID Connect Discovery, kept, and asked for anew with restraint.

An issuer's address comes from a tenant, so each namespace has its own keys and its own share of what is fetched at a time.

Source: OpenID Connect Discovery 1.0 sections 4.1 and 4.3.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from penstock.errors import Unavailable
from penstock.routing.access import RouteIssuer
from penstock_serving.gateway.access.documents import TIMEOUT_SECONDS, DocumentClient
from penstock_serving.gateway.access.jwks import VerificationKey, usable_keys
from penstock_serving.gateway.lookups import charge_lookups_to

logger = logging.getLogger(__name__)
FRESH_SECONDS: Final = 600.0
"""Keys are asked for again after this."""
STALE_SECONDS: Final = 3600.0
"""Where the issuer does not answer, keys serve this long."""
RESTRAINT_SECONDS: Final = 30.0
"""Between two attempts, whatever tokens come."""
_AT_A_TIME: Final = 2
_MOST_ISSUERS: Final = 64
"""Of a namespace, that are kept."""


@dataclass(slots=True)
class _Known:
    """What is known of one issuer."""

    keys: tuple[VerificationKey, ...] = ()
    fetched_at: float = float("-inf")
    tried_at: float = float("-inf")
    problem: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Issuers:
    """Keys by namespace and issuer. Belongs to one event loop.

    Args:
        allow_private: whether addresses that are not public may be asked.
        ca_file: certificates (PEM) to trust beside the system's.
        clock: monotonic, in seconds.
    """

    def __init__(
        self, *, allow_private: bool, ca_file: Path | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._documents = DocumentClient(allow_private=allow_private, ca_file=ca_file)
        self._clock = clock
        self._known: dict[str, dict[tuple[str, str | None], _Known]] = {}
        self._gates: dict[str, asyncio.Semaphore] = {}

    async def close(self) -> None:
        """End connections."""
        await self._documents.close()

    async def keys(self, namespace: str, issuer: RouteIssuer, key_id: str | None) -> tuple[VerificationKey, ...]:
        """The issuer's keys that may have signed a token with this `kid`, the likeliest first, fetched where need be.

        Args:
            namespace: on whose behalf.
            issuer: whose.
            key_id: the token's `kid`; None: any key may have signed it.

        Raises:
            Unavailable: the issuer's keys could not be had.
        """
        known = self._entry(namespace, issuer)
        if not self._suffices(known, key_id):
            gate = self._gates.setdefault(namespace, asyncio.Semaphore(_AT_A_TIME))
            async with known.lock, gate:
                # Another request may have fetched them meanwhile.
                if not self._suffices(known, key_id) and self._clock() - known.tried_at >= RESTRAINT_SECONDS:
                    with charge_lookups_to(namespace):
                        await self._refresh(known, issuer)
        if self._clock() - known.fetched_at > STALE_SECONDS:
            raise Unavailable("IssuerUnavailable", f"the keys of {issuer.issuer} cannot be had: {known.problem}")
        alike = tuple(key for key in known.keys if key.key_id == key_id)
        return alike + tuple(key for key in known.keys if key.key_id != key_id and None in (key_id, key.key_id))

    def _entry(self, namespace: str, issuer: RouteIssuer) -> _Known:
        mine = self._known.setdefault(namespace, {})
        named = issuer.issuer, issuer.jwks_uri
        if named not in mine and len(mine) >= _MOST_ISSUERS:
            mine.pop(next(iter(mine)))
        return mine.setdefault(named, _Known())

    def _suffices(self, known: _Known, key_id: str | None) -> bool:
        fresh = self._clock() - known.fetched_at <= FRESH_SECONDS
        return fresh and (key_id is None or any(key.key_id == key_id for key in known.keys))

    async def _refresh(self, known: _Known, issuer: RouteIssuer) -> None:
        known.tried_at = self._clock()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                uri = issuer.jwks_uri or await self._discover(issuer.issuer)
                document = await self._documents.get_json(uri)
                known.keys = await asyncio.to_thread(usable_keys, document)
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            known.problem = str(error) or type(error).__name__
            logger.warning("keys of token issuer %s: %s", issuer.issuer, known.problem)
            return
        known.fetched_at = self._clock()
        known.problem = ""

    async def _discover(self, issuer: str) -> str:
        document = await self._documents.get_json(issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != issuer:
            raise ValueError(f"its discovery document is of another issuer, {document.get('issuer')!r}")
        uri = document.get("jwks_uri")
        if not isinstance(uri, str):
            raise ValueError("its discovery document names no jwks_uri")  # noqa: TRY004 -- the document is wrong
        return uri
