"""Holding a place behind each gateway: renew the lease, and give it back before leaving."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlsplit

from penstock.errors import Unavailable
from penstock.routing.leases import ReplicaLease, ReplicaStats
from penstock.serving.settings import ReplicaSettings

logger = logging.getLogger(__name__)

_REQUEST_SECONDS: Final = 3.0
_DELETE_SECONDS: Final = 5.0
_RENEWALS_IN_LEASE: Final = 3
_MAX_ANSWER_BYTES: Final = 64 * 1024


class Leases:
    """One renewing task for each gateway."""

    def __init__(self, settings: ReplicaSettings, address: str, digest: str, stats: Callable[[], ReplicaStats]) -> None:
        self._settings = settings
        self._address = address
        self._digest = digest
        self._stats = stats
        self._tasks = [asyncio.create_task(self._renew(url), name=f"lease {url}") for url in settings.gateways]

    async def leave(self) -> None:
        """Stop renewing and take this replica out of every gateway. Returns once they send no new request."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._delete(url) for url in self._settings.gateways))

    async def _renew(self, gateway: str) -> None:
        held = None
        while True:
            try:
                async with asyncio.timeout(_REQUEST_SECONDS):
                    status, answer = await self._call("PUT", gateway, self._lease())
                problem = "" if status < 300 else f"HTTP {status} {answer[:200]}"  # noqa: PLR2004 -- HTTP's success
            except (OSError, TimeoutError, Unavailable) as error:
                problem = str(error) or type(error).__name__
            if held is not (not problem):
                held = not problem
                if held:
                    logger.info("gateway %s sends requests here", gateway)
                else:
                    logger.warning("gateway %s does not take this replica: %s; trying on", gateway, problem)
            await asyncio.sleep(self._settings.lease_seconds / _RENEWALS_IN_LEASE)

    async def _delete(self, gateway: str) -> None:
        try:
            async with asyncio.timeout(_DELETE_SECONDS):
                status, answer = await self._call("DELETE", gateway, b"")
        except (OSError, TimeoutError, Unavailable) as error:
            logger.warning("could not leave gateway %s: %s; the lease will end by itself", gateway, error)
            return
        if status >= 300:  # noqa: PLR2004 -- HTTP's success
            logger.warning("could not leave gateway %s: HTTP %d %s", gateway, status, answer[:200])

    def _lease(self) -> bytes:
        settings = self._settings
        lease = ReplicaLease(
            namespace=settings.namespace,
            model=settings.model,
            version=settings.version,
            revision=settings.revision,
            digest=self._digest,
            address=self._address,
            lease_seconds=settings.lease_seconds,
            stats=self._stats(),
        )
        return lease.model_dump_json().encode()

    async def _call(self, method: str, gateway: str, body: bytes) -> tuple[int, str]:
        path = f"/v1/replicas/{quote(self._settings.replica_id, safe='')}"
        return await _request(method, gateway, path, self._settings.registration_token, body)


async def _request(method: str, base: str, path: str, token: str, body: bytes) -> tuple[int, str]:
    """One HTTP request on a connection of its own; the caller sets the deadline.

    A full client would cost this process more memory than all the rest of the module.

    Raises:
        OSError: no connection.
        Unavailable: the answer is not HTTP.
    """
    url = urlsplit(base)
    tls = url.scheme == "https"
    port = url.port or (443 if tls else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=tls or None, limit=_MAX_ANSWER_BYTES)
    try:
        head = (
            f"{method} {url.path.rstrip('/')}{path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        answer = await reader.read(_MAX_ANSWER_BYTES)
    finally:
        writer.close()
    header, _, content = answer.partition(b"\r\n\r\n")
    words = header.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():  # noqa: PLR2004 -- version and status
        raise Unavailable("GatewayUnreachable", "the gateway's agent did not answer in HTTP")
    return int(words[1]), content.decode(errors="replace")
