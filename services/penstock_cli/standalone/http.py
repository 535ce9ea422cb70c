"""A GET on this machine, past any proxy that the environment names."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 5.0


def get(url: str, token: str | None = None) -> tuple[int, bytes]:
    """Status and body; (0, b"") where nobody answers.

    Args:
        url: an `http:` URL.
        token: bearer token to send.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_TIMEOUT_SECONDS)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request("GET", parts.path or "/", headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
