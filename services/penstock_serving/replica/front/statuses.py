"""Status lines."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

_NAMED: Final = {413: "Content Too Large"}
"""As RFC 9110 has them, where this release of Python does not."""
STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {_NAMED.get(status, status.phrase)}\r\n".encode() for status in HTTPStatus
}
