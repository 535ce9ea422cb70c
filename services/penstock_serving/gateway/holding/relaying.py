"""A stream that comes by the agent, since it found no replica or has a token that is new: its bytes go both ways as they come.

A replica is a tenant's: of what it answers, the head is read and written anew, the rest goes to HAProxy as it is. The connection
to HAProxy carries nothing after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import web

from penstock.addresses import split_port
from penstock_serving.gateway.holding.calls import CallResponse, refusal, send_raw
from penstock_serving.gateway.holding.forwarding import CONNECT_SECONDS, HANDSHAKE_SECONDS
from penstock_serving.gateway.table.traffic import Target

STREAM_BYTES: Final = 256 * 1024
"""What a stream takes at most, in both directions and on both sides."""
_READ_BYTES: Final = 32 * 1024
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2})[ \r]")
_KEPT: Final = re.compile(
    rb"(?i)(content-type|content-length|trailer|transfer-encoding|traceresponse|cache-status|grpc-[a-z-]+):[^\r\n]*"
)
"""The header lines of a replica's that are told."""
_GONE: Final = "the replica went before it answered: open the stream anew"


async def relay_stream(
    request: web.Request, trust: ssl.SSLContext | None, target: Target, headers: Mapping[str, str]
) -> web.StreamResponse | None:
    """The replica's answer, sent already; None where the replica cannot be had, and nothing of the stream has been read.

    Args:
        request: the stream, as HAProxy made it.
        trust: of replicas that speak TLS; None: there are none.
        target: the replica.
        headers: what it is told.
    """
    if target.tls_name and trust is None:
        return None
    try:
        reader, writer = await _connect(target, trust if target.tls_name else None)
    except (OSError, TimeoutError):
        return None
    writer.write(_write_head(request.rel_url.raw_path, target.address, headers))
    sending = asyncio.create_task(_send(request, writer), name="stream")
    # Where the client's side breaks, the replica waits for no more of it.
    sending.add_done_callback(lambda ended: None if _went_well(ended) else writer.transport.abort())
    try:
        return await _answer(request, reader)
    finally:
        sending.cancel()
        writer.transport.abort()
        await asyncio.wait([sending])


async def _connect(target: Target, context: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to it, and to nobody who cannot prove to be it.

    Raises:
        OSError: there is none.
        TimeoutError: not in time.
    """
    host, port = split_port(target.address)
    name = target.tls_name if context is not None else None
    async with asyncio.timeout(CONNECT_SECONDS if context is None else HANDSHAKE_SECONDS):
        return await asyncio.open_connection(host, port, limit=_READ_BYTES, ssl=context, server_hostname=name)


def _write_head(path: str, address: str, headers: Mapping[str, str]) -> bytes:
    own = {"Host": address, "TE": "trailers", "Transfer-Encoding": "chunked", "Connection": "close"}
    taken = {name.lower() for name in own}
    told = own | {name: value for name, value in headers.items() if name.lower() not in taken}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape")


async def _send(request: web.Request, writer: asyncio.StreamWriter) -> None:
    """What the client says, no faster than the replica takes it."""
    async for chunk in request.content.iter_any():
        writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _went_well(sending: asyncio.Task[None]) -> bool:
    return not sending.cancelled() and sending.exception() is None


async def _answer(request: web.Request, reader: asyncio.StreamReader) -> web.StreamResponse:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        head = b""
    found = _STATUS_LINE.match(head)
    if found is None:
        return refusal(HTTPStatus.BAD_GATEWAY, _GONE)
    lines = [line for line in head.split(b"\r\n")[1:] if _KEPT.fullmatch(line)]
    opening = b"\r\n".join((b"HTTP/1.1 %b -" % found[1], *lines, b"Connection: close", b"", b""))
    await send_raw(request, opening)
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_READ_BYTES):
            await send_raw(request, chunk)
    return CallResponse.stand_for_sent(int(found[1]))
