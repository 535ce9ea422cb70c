"""One request to one replica, and its answer back to the client as it comes.

What a replica sends is a tenant's: whatever it says and however much, this process keeps little of it.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from penstock_serving.gateway.answers import error
from penstock_serving.gateway.haproxy.access_rules import (
    API_KEY_HEADER,
    CALLER_HEADER,
    CREDENTIAL_HEADER,
    SOURCE_HEADER,
)
from penstock_serving.gateway.haproxy.grpc_rules import CALL_HEADER
from penstock_serving.gateway.holding.calls import write_call
from penstock_serving.gateway.holding.waiting import Holding
from penstock_serving.gateway.lookups import Resolver
from penstock_serving.gateway.table.traffic import Target

CONNECT_SECONDS, HANDSHAKE_SECONDS = 1.0, 3.0
"""For a connection to a replica, in the clear and with TLS."""
TRACERESPONSE: Final = "traceresponse"
_HOP_BY_HOP: Final = {
    hdrs.CONNECTION, hdrs.KEEP_ALIVE, hdrs.TE, hdrs.TRAILER, hdrs.TRANSFER_ENCODING, hdrs.UPGRADE, hdrs.CONTENT_LENGTH,
    hdrs.EXPECT, hdrs.PROXY_AUTHENTICATE, hdrs.PROXY_AUTHORIZATION,
}  # fmt: skip
_READ_BYTES: Final = 32 * 1024
_WINDOW_BYTES: Final = 64 * 1024
"""What the kernel keeps of an answer that is not read yet; one read brings no more."""
_STREAM_BYTES: Final = 256 * 1024
"""What an answer on its way takes at most, on both sides and between."""
_MOST_HEADERS, _HEADER_BYTES = 64, 2048
_REFUSAL_BYTES: Final = 4096
"""Of a full replica's answer. Thousands may be kept while other replicas are asked."""
_LONGEST_ANSWER: Final = 1 << 31
_REFUSAL_HEADERS: Final = (
    hdrs.CONTENT_TYPE,
    hdrs.RETRY_AFTER,
    TRACERESPONSE,
    "grpc-status",
    "grpc-message",
    "grpc-retry-pushback-ms",
)


def session_to_replicas() -> aiohttp.ClientSession:
    """A client that is used for whatever tenants name, within bounds for each connection."""
    connector = aiohttp.TCPConnector(resolver=Resolver(), limit=0, keepalive_timeout=5.0, socket_factory=_small_socket)
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        trust_env=False,
        read_bufsize=_READ_BYTES,
        max_headers=_MOST_HEADERS,
        max_field_size=_HEADER_BYTES,
        max_line_size=_HEADER_BYTES,
    )


def _small_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW_BYTES)
    return made


def scheme_of(tls_name: str) -> str:
    """Of a replica's URL, by the name that its certificate must have."""
    return "https" if tls_name else "http"


def choose(targets: Sequence[Target], tried: Iterable[str]) -> Target | None:
    """One of the targets not yet tried, at random by weight."""
    excluded = set(tried)
    left = [target for target in targets if target.replica_id not in excluded]
    # Not for secrets: any spread will do.
    return random.choices(left, [target.weight for target in left])[0] if left else None  # noqa: S311 -- see above


def replica_headers(headers: Mapping[str, str], caller: str | None) -> CIMultiDict[str]:
    """What a replica is told: who asks, and nothing by which it could ask in their name."""
    left = _end_to_end_headers(headers)
    for name in (hdrs.AUTHORIZATION, API_KEY_HEADER, CALLER_HEADER, CREDENTIAL_HEADER, SOURCE_HEADER):
        left.popall(name, None)
    if caller is not None:
        left[CALLER_HEADER] = caller
    return left


class Forwarding:
    """Asks replicas.

    Args:
        session: to them.
        holding: whose memory answers take that do not come at once.
        seconds: for one answer.
        mark: given a request and an answer's head, writes there whether the trace is kept.
        trust: of replicas that speak TLS; None: there are none.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        holding: Holding,
        seconds: float,
        mark: Callable[[web.Request, web.StreamResponse], object],
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._session = session
        self._trust = trust
        self._holding = holding
        self._timeout = aiohttp.ClientTimeout(
            total=seconds, connect=CONNECT_SECONDS if trust is None else HANDSHAKE_SECONDS
        )
        self._mark = mark

    async def attempt(
        self, request: web.Request, namespace: str, body: bytearray, target: Target, headers: Mapping[str, str]
    ) -> web.StreamResponse | None:
        """The replica's answer, sent already unless it is short; None where it did not give one.

        Raises:
            Unavailable: the answer is long, and the namespace's share of memory is used up.
        """
        url = URL(f"{scheme_of(target.tls_name)}://{target.address}{request.rel_url.raw_path_qs}", encoded=True)
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=body or None, timeout=self._timeout, allow_redirects=False,
                ssl=self._trust or True, server_hostname=target.tls_name or None,
            ) as answer:  # fmt: skip
                if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                    return await _refusal(answer)
                first = await answer.content.readany()
                if answer.content.at_eof():
                    return web.Response(status=answer.status, headers=_end_to_end_headers(answer.headers), body=first)
                send = self._send_whole if CALL_HEADER in request.headers else self._pass_on
                return await send(request, namespace, answer, first)
        except aiohttp.ConnectionTimeoutError:
            return None
        except TimeoutError:
            return error(HTTPStatus.GATEWAY_TIMEOUT, "the replica did not answer in time")
        except aiohttp.ClientError:
            return None

    async def _send_whole(
        self, request: web.Request, namespace: str, answer: aiohttp.ClientResponse, first: bytes
    ) -> web.StreamResponse:
        """Send the answer to a call once all of it is there, since its status comes last.

        Raises:
            Unavailable: the namespace's share of memory is used up.
        """
        with self._holding.body(namespace) as kept:
            self._holding.grow(namespace, len(first))
            kept.data += first
            await kept.read(answer.content, _LONGEST_ANSWER)
            whole = web.Response(
                status=answer.status, headers=_end_to_end_headers(answer.headers), body=bytes(kept.data)
            )
            self._mark(request, whole)
            response = write_call(whole)
            await response.prepare(request)
            return response

    async def _pass_on(
        self, request: web.Request, namespace: str, answer: aiohttp.ClientResponse, first: bytes
    ) -> web.StreamResponse:
        """Send the answer on as it comes, no faster than its client takes it.

        Raises:
            Unavailable: the namespace's share of memory is used up.
        """
        response = web.StreamResponse(status=answer.status, headers=_end_to_end_headers(answer.headers))
        response.content_length = answer.content_length
        self._mark(request, response)
        with self._holding.reserve(namespace, _STREAM_BYTES):
            try:
                await response.prepare(request)
                await response.write(first)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
            except (aiohttp.ClientError, TimeoutError, OSError):
                # The head is out, so that no error can be told any more; but what is missing must not look whole.
                if request.transport is not None:
                    request.transport.abort()
        return response


async def _refusal(answer: aiohttp.ClientResponse) -> web.Response:
    """A full replica's answer, or the like of it where it is long."""
    try:
        await answer.content.readexactly(_REFUSAL_BYTES + 1)
    except asyncio.IncompleteReadError as whole:
        kept = {name: answer.headers[name] for name in _REFUSAL_HEADERS if name in answer.headers}
        return web.Response(status=answer.status, headers=kept, body=whole.partial)
    return error(answer.status, "the replica is full")


def _end_to_end_headers(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers that pass a proxy."""
    named = {name.strip().lower() for name in headers.get(hdrs.CONNECTION, "").split(",")}
    left = CIMultiDict(headers)
    for name in (*_HOP_BY_HOP, *named):
        left.popall(name, None)
    return left
