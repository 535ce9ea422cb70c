"""Requests over HTTP that carry what is denied and what is missing as Python's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter

from penstock_runtime.sources.source import CHUNK_BYTES, SMALL_BYTES, size_error

_SECONDS: Final = (10.0, 60.0)
"""To connect, and between two pieces of an answer."""
_REFUSALS: Final = (401, 403, 407, 451)
_ABSENCES: Final = (404, 410)


class _Deadlines(HTTPAdapter):
    """No request without a deadline, also of libraries that set none."""

    def send(self, request: requests.PreparedRequest, *args: Any, **settings: Any) -> requests.Response:
        settings["timeout"] = settings.get("timeout") or _SECONDS
        return super().send(request, *args, **settings)


def add_deadlines(session: requests.Session) -> requests.Session:
    """The session, each of whose requests now has a deadline."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Deadlines())
    return session


def check_response(response: requests.Response) -> requests.Response:
    """The response, if it is a success.

    Raises:
        FileNotFoundError, PermissionError: the server says so.
        OSError: it answers anything else; worth another try.
    """
    if response.ok:
        return response
    said = f"{response.status_code} {response.reason}".strip()
    response.close()
    if response.status_code in _ABSENCES:
        raise FileNotFoundError(said)
    if response.status_code in _REFUSALS:
        raise PermissionError(said)
    raise OSError(f"the server answers {said}")


def pieces(response: requests.Response, offset: int) -> Iterator[bytes]:
    """The body from a byte on, whether or not the server took the request for a range."""
    with response:
        skip = 0 if response.status_code == requests.codes.partial_content else offset
        for piece in response.raw.stream(CHUNK_BYTES, decode_content=False):
            if skip >= len(piece):
                skip -= len(piece)
                continue
            yield piece[skip:] if skip else piece
            skip = 0


def read_whole(response: requests.Response, where: str) -> bytes:
    """A small body.

    Raises:
        Invalid: ModelInvalid; it is not small.
    """
    body = bytearray()
    for piece in pieces(response, 0):
        body += piece
        if len(body) > SMALL_BYTES:
            raise size_error(where)
    return bytes(body)


def headers(offset: int) -> dict[str, str]:
    """Of a request for a body from a byte on, as it is."""
    plain = {"Accept-Encoding": "identity"}
    return {**plain, "Range": f"bytes={offset}-"} if offset else plain
