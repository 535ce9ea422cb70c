"""A GET to a part of the platform on this machine."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

import httpx

from penstock.errors import Unavailable
from penstock_operator.clients.bounds import Bounds
from penstock_operator.clients.connections import BoundedTransport
from penstock_operator.clients.exchange import BoundedClient

_BOUNDS: Final = Bounds(seconds=5.0, most_bytes=16 * 2**20)
"""Whoever listens there need not be a part of ours, nor Ray."""


def get(
    url: str,
    token: str | None = None,
    more: Mapping[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> tuple[int, bytes]:
    """As `fetch`, but (0, b"") where nobody answers, or not as it should."""
    try:
        return fetch(url, token, more, trust, server_name)
    except Unavailable:
        return 0, b""


def fetch(
    url: str,
    token: str | None = None,
    more: Mapping[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> tuple[int, bytes]:
    """Status and body.

    Args:
        url: an `http:` or `https:` URL.
        token: bearer token to send.
        more: other headers.
        trust: whose certificates an `https:` server may have; None: those that the system trusts.
        server_name: for which its certificate must be; None: for the URL's host.

    Raises:
        Unavailable: nobody answers, or not as it should; it says why.
    """
    client = BoundedClient("", {"authorization": f"Bearer {token}"} if token else {}, BoundedTransport(trust=trust))
    try:
        extensions = {"sni_hostname": server_name} if server_name is not None else None
        answer = client.exchange("GET", url, _BOUNDS, headers=more, extensions=extensions)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable("NoAnswer", str(error) or type(error).__name__) from error
    finally:
        client.close()
    return answer.status, answer.content
