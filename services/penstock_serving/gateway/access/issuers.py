"""The public keys of token issuers: found by OpenID Connect Discovery, kept, and asked for anew with restraint.

An issuer's address comes from a tenant. So nothing but public addresses is spoken to unless the gateway is told otherwise,
answers are bounded in time and size, redirects are not followed, and each namespace has its own keys and its own share
of what is fetched at a time.

Sources: OpenID Connect Discovery 1.0 sections 4.1 and 4.3; RFC 7517 (JWK).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any, Final

import aiohttp
import jwt
from aiohttp import hdrs
from aiohttp.abc import ResolveResult
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic_core import from_json
from yarl import URL

from penstock.errors import Unavailable
from penstock.routing.access import RouteIssuer
from penstock_serving.gateway.lookups import Resolver, charge_lookups_to

logger = logging.getLogger(__name__)
PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
"""What an RSA key may verify whose set binds it to nothing."""
_TIMEOUT_SECONDS: Final = 5.0
_MAX_BYTES: Final = 262_144
_MAX_KEYS: Final = 64
FRESH_SECONDS: Final = 600.0
"""Keys are asked for again after this."""
STALE_SECONDS: Final = 3600.0
"""Where the issuer does not answer, keys serve this long."""
RESTRAINT_SECONDS: Final = 30.0
"""Between two attempts, whatever tokens come."""
_AT_A_TIME: Final = 2
_MOST_ISSUERS: Final = 64
"""Of a namespace, that are kept."""
_NAT64: Final = IPv6Network("64:ff9b::/96")
_RSA_BITS: Final = range(2048, 4097)
_RSA_MOST_EXPONENT: Final = 65537
"""Larger numbers only make verification slow, for all. Issuers have keys of 2048 to 4096 bits with just this exponent."""


class _Public(Resolver):
    """Resolves names to public addresses only. The connection goes to just what is returned here."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = [each for each in await super().resolve(host, port, family) if is_public(each["host"])]
        if not found:
            raise OSError(errno.EADDRNOTAVAIL, f"{host} has no public address")
        return found


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip in _NAT64 or ip.sixtofour or ip.teredo:
            return False  # they stand for an IPv4 address behind some translator
        ip = ip.ipv4_mapped or ip
    return ip.is_global and not ip.is_multicast


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key of an issuer."""

    key_id: str | None
    algorithms: tuple[str, ...]
    """Signatures that it may verify."""
    public: PublicKey


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
        self._allow_private = allow_private
        self._context = ssl.create_default_context()
        if ca_file is not None:
            self._context.load_verify_locations(ca_file)
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._known: dict[str, dict[tuple[str, str | None], _Known]] = {}
        self._gates: dict[str, asyncio.Semaphore] = {}

    async def close(self) -> None:
        """End connections."""
        if self._session is not None:
            await self._session.close()

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
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                uri = issuer.jwks_uri or await self._discover(issuer.issuer)
                document = await self._get(uri)
                known.keys = await asyncio.to_thread(usable_keys, document)
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            known.problem = str(error) or type(error).__name__
            logger.warning("keys of token issuer %s: %s", issuer.issuer, known.problem)
            return
        known.fetched_at = self._clock()
        known.problem = ""

    async def _discover(self, issuer: str) -> str:
        document = await self._get(issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != issuer:
            raise ValueError(f"its discovery document is of another issuer, {document.get('issuer')!r}")
        uri = document.get("jwks_uri")
        if not isinstance(uri, str):
            raise ValueError("its discovery document names no jwks_uri")  # noqa: TRY004 -- the document is wrong
        return uri

    async def _get(self, uri: str) -> Mapping[str, Any]:
        """A JSON object by https.

        Raises:
            ValueError: the address may not be asked, or the answer is none, too large, or of another form.
        """
        url = URL(uri)
        if url.scheme != "https" or not url.host or url.user is not None:
            raise ValueError(f"{uri} is no https:// URL")
        if not self._allow_private and _is_address(url.host) and not is_public(url.host):
            raise ValueError(f"{url.host} is no public address")
        async with self._client().get(url, allow_redirects=False) as response:
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

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            resolver = Resolver() if self._allow_private else _Public()
            connector = aiohttp.TCPConnector(resolver=resolver, ssl=self._context, limit=64, limit_per_host=2)
            timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=timeout,
                trust_env=False,
                # A little that is compressed may be a lot.
                auto_decompress=False,
                headers={hdrs.ACCEPT_ENCODING: "identity"},
            )
        return self._session


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def usable_keys(document: Mapping[str, Any]) -> tuple[VerificationKey, ...]:
    """The keys of a JWK set that can verify signatures: public ones, meant for that, of a sound size.

    Args:
        document: the set as JSON.

    Raises:
        ValueError: this is no JWK set.
    """
    rows = document.get("keys")
    if not isinstance(rows, list):
        raise ValueError("a JWK set has a list of keys")  # noqa: TRY004 -- the document is wrong
    found = []
    for row in rows[:_MAX_KEYS]:
        if not isinstance(row, dict) or row.get("use", "sig") != "sig" or row.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        try:
            key = jwt.PyJWK(row)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
            logger.info("a key of a JWK set is not used: %s", error)
            continue
        public = key.key
        if isinstance(public, PublicKey) and _is_sound(public):
            anything = isinstance(public, RSAPublicKey) and "alg" not in row
            found.append(VerificationKey(key.key_id, RSA_ALGORITHMS if anything else (key.algorithm_name,), public))
    return tuple(found)


def _is_sound(public: PublicKey) -> bool:
    if not isinstance(public, RSAPublicKey):
        return True
    return public.key_size in _RSA_BITS and public.public_numbers().e <= _RSA_MOST_EXPONENT
