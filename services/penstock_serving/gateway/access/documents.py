"""Fetches JSON documents from addresses that tenants choose.

Nothing but public addresses is spoken to unless the gateway is told otherwise, answers are bounded in time and size, and
redirects are not followed. Where the environment names a proxy (`HTTPS_PROXY`, `NO_PROXY`), that resolves the name: here it is only
seen to that the name is none of a private address, as far as it is known here.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import ResolveResult
from pydantic_core import from_json
from yarl import URL

from penstock_serving.gateway.lookups import Resolver

logger = logging.getLogger(__name__)
TIMEOUT_SECONDS: Final = 5.0
"""From the name of a document's server to its last byte."""
_LOOKUP_SECONDS: Final = 1.0
"""Of names that a proxy resolves: behind one, those outside are often known to no resolver, and some take long to say so."""
_MAX_BYTES: Final = 262_144
_NAT64: Final = IPv6Network("64:ff9b::/96")


class _Public(Resolver):
    """Resolves names to public addresses only. The connection goes to just what is returned here."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = [each for each in await super().resolve(host, port, family) if is_public(each["host"])]
        if not found:
            raise _NotPublicError(errno.EADDRNOTAVAIL, f"{host} has no public address")
        return found


class _NotPublicError(OSError):
    """A name is known, and none of its addresses is public."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip in _NAT64 or ip.sixtofour or ip.teredo:
            return False  # they stand for an IPv4 address behind some translator
        ip = ip.ipv4_mapped or ip
    return ip.is_global and not ip.is_multicast


class DocumentClient:
    """Asks servers of others for JSON. Belongs to one event loop.

    Args:
        allow_private: whether addresses that are not public may be asked.
        ca_file: certificates (PEM) to trust beside the system's.
    """

    def __init__(self, *, allow_private: bool, ca_file: Path | None) -> None:
        self._allow_private = allow_private
        self._context = ssl.create_default_context()
        if ca_file is not None:
            self._context.load_verify_locations(ca_file)
        self._resolver = Resolver() if allow_private else _Public()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        """By whether they go through a proxy, whose own address need not be public."""

    async def close(self) -> None:
        """End connections."""
        for session in self._sessions.values():
            await session.close()

    async def get_json(self, uri: str) -> Mapping[str, Any]:
        """A JSON object by https.

        Raises:
            ValueError: the address may not be asked, or the answer is none, too large, or of another form.
        """
        url = URL(uri)
        if url.scheme != "https" or not url.host or url.user is not None:
            raise ValueError(f"{uri} is no https:// URL")
        if not self._allow_private and _is_address(url.host) and not is_public(url.host):
            raise ValueError(f"{url.host} is no public address")
        proxy = None if proxy_bypass(url.host) else getproxies().get("https")
        if proxy is not None and not self._allow_private:
            await self._refuse_private(url.host)
        async with self._client(proxied=proxy is not None).get(url, allow_redirects=False, proxy=proxy) as response:
            if "content-encoding" in response.headers:
                raise ValueError(f"{uri} answered with a body that is compressed")
            if response.status != 200:  # noqa: PLR2004 -- anything else, a redirect too, is no answer
                raise ValueError(f"{uri} answered with status {response.status}")
            body = await response.content.read(_MAX_BYTES + 1)
            while len(body) <= _MAX_BYTES and not response.content.at_eof():
                body += await response.content.read(_MAX_BYTES + 1 - len(body))
        if len(body) > _MAX_BYTES:
            raise ValueError(f"{uri} answered with more than {_MAX_BYTES} bytes")
        # It refuses what is nested deeply, on which others end with another kind of error.
        document = from_json(body)
        if not isinstance(document, dict):
            raise ValueError(f"{uri} answered with no JSON object")  # noqa: TRY004 -- the document is wrong
        return document

    async def _refuse_private(self, host: str) -> None:
        """Raise for a name of which it is known here that it has no public address."""
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                await self._resolver.resolve(host)
        except _NotPublicError:
            raise
        except OSError:  # the time, too
            logger.debug("%s is not known here; the proxy resolves it", host)

    def _client(self, *, proxied: bool) -> aiohttp.ClientSession:
        if proxied not in self._sessions:
            resolver = Resolver() if proxied else self._resolver
            connector = aiohttp.TCPConnector(resolver=resolver, ssl=self._context, limit=64, limit_per_host=2)
            self._sessions[proxied] = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
                trust_env=False,
                # A little that is compressed may be a lot.
                auto_decompress=False,
                headers={hdrs.ACCEPT_ENCODING: "identity"},
            )
        return self._sessions[proxied]


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
