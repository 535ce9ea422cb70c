"""Exchanges with servers that somebody else runs: seconds in all, bytes as received, no compression, no redirect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import httpx

from penstock_operator.clients.bounds import Bounds, enforce
from penstock_operator.clients.connections import BoundedTransport

IDENTITY: Final[Mapping[str, str]] = {"accept-encoding": "identity"}
"""Asks for what is sent to be what it is: 256 KiB of gzip may be 256 MiB."""


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """A whole answer, within its bounds."""

    status: int
    headers: httpx.Headers
    content: bytes

    @property
    def is_success(self) -> bool:
        """Whether it is what was asked for. A redirect is not: it is followed nowhere."""
        return 200 <= self.status < 300  # noqa: PLR2004 -- the class of the status

    def excerpt(self, most: int = 200) -> str:
        """Its first characters, for a message."""
        return self.content[: 4 * most].decode(errors="replace")[:most]


class BoundedClient:
    """A client of one server. Safe for several threads.

    Args:
        base_url: of the server.
        headers: sent with each request.
        transport: sends requests; None: to whatever the URL names.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            base_url=base_url,
            headers={**IDENTITY, **headers},
            transport=transport or BoundedTransport(),
            trust_env=False,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Give connections back."""
        self._http.close()

    def exchange(
        self,
        method: str,
        path: str,
        bounds: Bounds,
        *,
        content: str | None = None,
        headers: Mapping[str, str] | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> WholeAnswer:
        """Ask, and read the whole answer, whatever its status.

        Raises:
            httpx.HTTPError: there was none within the bounds, or it is compressed.
        """
        given = {**({"content-type": "application/json"} if content is not None else {}), **(headers or {})}
        connecting = min(bounds.connect_seconds, bounds.seconds)
        asked = self._http.build_request(
            method,
            path,
            content=content,
            headers=given,
            timeout=httpx.Timeout(bounds.seconds, connect=connecting),
            extensions=dict(extensions or {}),
        )
        try:
            with enforce(bounds), closing(self._http.send(asked, stream=True)) as response:
                return WholeAnswer(
                    response.status_code, response.headers, b"".join(_read_body(response, bounds.most_bytes))
                )
        except httpx.ConnectTimeout as error:
            raise httpx.ConnectTimeout(f"no connection within {connecting:g} s") from error
        except httpx.TimeoutException as error:
            raise httpx.ReadTimeout(f"no whole answer within {bounds.seconds:g} s") from error


def _read_body(response: httpx.Response, most: int) -> Iterator[bytes]:
    """The body as it is received. Raises `httpx.RemoteProtocolError` where it is compressed or too long."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise httpx.RemoteProtocolError(f"the answer is encoded ({encoding[:40]}), which was not asked for")
    told = response.headers.get("content-length", "")
    if told.isdecimal() and int(told[:20]) > most and response.request.method != "HEAD":
        raise httpx.RemoteProtocolError(f"the answer is longer than {most} bytes")
    length = 0
    for piece in (response.content,) if response.is_stream_consumed else response.iter_raw():
        length += len(piece)
        if length > most:
            raise httpx.RemoteProtocolError(f"the answer is longer than {most} bytes")
        yield piece
