"""Content codings (RFC 9110 section 8.4): what a request's body was before it was compressed, and answers compressed on demand."""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Final

from penstock.errors import Invalid
from penstock.protocol.refusals import Refusal, bad_request

ACCEPTED: Final = b"gzip, deflate"
"""What an `Accept-Encoding` of ours says."""
LEAST_COMPRESSED: Final = 1400
"""Bytes of an answer below which none is compressed: it travels in one packet all the same."""
_WINDOW: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
"""zlib's `wbits` by coding: of a gzip file (RFC 1952), and of zlib's own format (RFC 1950), which HTTP calls `deflate`."""
_FASTEST: Final = 1
"""zlib's level. The next ones take far longer for a little less."""
_SAMPLE: Final = 64 * 1024
"""Bytes at the beginning of an answer that stand for all of it."""
_WORTHWHILE: Final = 0.9
_REMEMBERED: Final = 64
_MOST_MEMBERS: Final = 16
"""Parts that a gzip file may be joined of. Each takes a copy of what follows."""


def knows_coding(coding: bytes) -> bool:
    """Whether a body in this coding, in lower case, can be read."""
    return coding in _WINDOW


def decompress(body: bytes | bytearray, coding: bytes, limit: int) -> bytes:
    """A body as it was before it was compressed.

    Never more than `limit` + 1 bytes are made of it, however small it is.

    Args:
        body: whole, as it came.
        coding: one that `knows_coding` is true of.
        limit: bytes that it may have.

    Raises:
        Invalid: it is not of this coding, not whole, or longer than the limit.
    """
    name = coding.decode()
    parts: list[bytes] = []
    room, left = limit, bytes(body)
    for _ in range(_MOST_MEMBERS):
        stream = zlib.decompressobj(_WINDOW[coding])
        try:
            parts.append(stream.decompress(left, room + 1))
        except zlib.error as error:
            raise bad_request(f"the body is not {name}, as is said of it: {error}") from error
        room -= len(parts[-1])
        if room < 0:
            raise Invalid(
                Refusal.LENGTH_TOO_LARGE, f"the body is over the limit of {limit} bytes once it is decompressed"
            )
        if not stream.eof:
            raise bad_request(f"the body ends in the middle of its {name} data")
        left = stream.unused_data
        if not left:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        if coding == b"deflate":
            break
    raise bad_request(f"{len(left)} bytes follow the end of the body's {name} data")


@lru_cache(_REMEMBERED)
def choose_coding(accepts: bytes) -> bytes:
    """The coding that a client would have an answer in, by RFC 9110 section 12.5.3; empty: as it is.

    Args:
        accepts: its `Accept-Encoding`.
    """
    weights: dict[bytes, float] = {}
    for item in accepts.lower().split(b","):
        name, *parameters = (part.strip() for part in item.split(b";"))
        weights[b"gzip" if name == b"x-gzip" else name] = _weight(parameters)
    others = weights.get(b"*", 0.0)
    gzip, deflate = weights.get(b"gzip", others), weights.get(b"deflate", others)
    best = max(gzip, deflate)
    if best <= 0 or weights.get(b"identity", 0.0) > best:
        return b""
    return b"gzip" if gzip >= deflate else b"deflate"


def _weight(parameters: list[bytes]) -> float:
    """The `q` among a coding's parameters; 0 where it is no weight, as if the coding were not there."""
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0 <= weight <= 1 else 0.0
    return 1.0


def compress(content: bytes, coding: bytes) -> bytes:
    """A body in a coding that `choose_coding` gave; the body itself where that is hardly shorter.

    Floating-point numbers in binary form shrink by less than a tenth, and take thrice the time of text. A long body shows by its
    beginning whether it is worth it, so that nobody else waits for what is not.
    """
    window = _WINDOW[coding]
    if len(content) > _SAMPLE and len(zlib.compress(content[:_SAMPLE], _FASTEST, window)) > _SAMPLE * _WORTHWHILE:
        return content
    shorter = zlib.compress(content, _FASTEST, window)
    return shorter if len(shorter) < len(content) else content
