"""One question to a gateway's agent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from penstock.api.conditions import Reason
from penstock.errors import Unavailable
from penstock.routing.fleet import FEATURES_HEADER, Endpoint
from penstock.routing.identities import GATEWAY_NAME

if TYPE_CHECKING:
    import ssl

_MAX_ANSWER_BYTES: Final = 64 * 1024
_FEATURES: Final = f"{FEATURES_HEADER}:".encode()


async def ask_agent(
    method: str, gateway: Endpoint, path: str, token: str, body: bytes, *, trust: ssl.SSLContext | None
) -> tuple[int, frozenset[bytes], str]:
    """One HTTP request on a connection of its own; the caller sets the deadline.

    A full client would cost this process more memory than all the rest of the module. With a trust, the gateway must be one of the
    platform's: the token goes to nobody else.

    Returns:
        The status, what the gateway says that it can (`penstock.routing.fleet.FEATURES`), and the answer.

    Raises:
        OSError: no connection.
        Unavailable: the answer is not HTTP.
    """
    url = urlsplit(gateway.base_url)
    tls = url.scheme == "https"
    if trust is not None and not tls:
        raise Unavailable(
            Reason.GATEWAY_UNREACHABLE, "its URL is not https, and a replica that speaks TLS tells nobody else"
        )
    port = url.port or (443 if tls else 80)
    name = (gateway.server_name if trust is None else GATEWAY_NAME) if tls else None
    reader, writer = await asyncio.open_connection(
        url.hostname, port, ssl=(trust or True) if tls else None, server_hostname=name, limit=_MAX_ANSWER_BYTES
    )
    try:
        head = (
            f"{method} {url.path.rstrip('/')}{path} HTTP/1.1\r\nHost: {gateway.host}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        answer = await _read_whole(reader)
    finally:
        writer.close()
    header, _, content = answer.partition(b"\r\n\r\n")
    words = header.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():  # noqa: PLR2004 -- version and status
        raise Unavailable(Reason.GATEWAY_UNREACHABLE, "the gateway's agent did not answer in HTTP")
    said = (line for line in header.lower().splitlines() if line.startswith(_FEATURES))
    features = frozenset(word for line in said for word in line.split()[1:])
    return int(words[1]), features, content.decode(errors="replace")


async def _read_whole(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side closes, as it was asked to, or as much of it as an answer may have."""
    try:
        return await reader.readexactly(_MAX_ANSWER_BYTES)
    except asyncio.IncompleteReadError as whole:
        return whole.partial
