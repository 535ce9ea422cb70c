"""What gRPC puts about its messages: five bytes before each, and the time that a call may take."""

from __future__ import annotations

import re
from typing import Final

from penstock.errors import Invalid
from penstock.protocol.refusals import Refusal, bad_request

PREFIX_BYTES: Final = 5
"""A flag, and the message's length in four bytes, the highest first."""
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")


def frame(message: bytes) -> bytes:
    """A message as it goes over the wire."""
    return b"\0%b%b" % (len(message).to_bytes(4, "big"), message)


def single_message(body: bytes | bytearray) -> tuple[bool, int]:
    """Whether the only message of a body is compressed, and where it ends; it begins after the prefix.

    Raises:
        Invalid: there is no message, a part of one, or more than one.
    """
    if len(body) < PREFIX_BYTES:
        raise bad_request(f"the call's body has {len(body)} bytes: a message's prefix alone has {PREFIX_BYTES}")
    compressed = _is_compressed(body[0])
    end = PREFIX_BYTES + int.from_bytes(body[1:PREFIX_BYTES], "big")
    if end != len(body):
        raise bad_request(
            f"the call's one message should have {end - PREFIX_BYTES} bytes, but {len(body) - PREFIX_BYTES} came"
        )
    return compressed, end


def _is_compressed(flag: int) -> bool:
    if flag > 1:
        raise bad_request(f"a message begins with the flag {flag}, which has no meaning: gRPC's are 0 and 1")
    return flag == 1


class MessageReader:
    """Takes a stream's messages out of its bytes, however they are cut."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes, most: int) -> list[tuple[bool, bytes]]:
        """The messages that are whole now, each with whether it is compressed.

        Args:
            data: what came.
            most: how many bytes a message may have.

        Raises:
            Invalid: one is too large, or its flag has no meaning.
        """
        self._held += data
        found: list[tuple[bool, bytes]] = []
        while len(self._held) >= PREFIX_BYTES:
            compressed = _is_compressed(self._held[0])
            length = int.from_bytes(self._held[1:PREFIX_BYTES], "big")
            if length > most:
                raise Invalid(Refusal.LENGTH_TOO_LARGE, f"a message of {length} bytes is over the limit of {most}")
            end = PREFIX_BYTES + length
            if len(self._held) < end:
                break
            found.append((compressed, bytes(self._held[PREFIX_BYTES:end])))
            del self._held[:end]
        return found

    def check_end(self) -> None:
        """The stream is over.

        Raises:
            Invalid: within a message.
        """
        if self._held:
            raise bad_request("the stream ended within a message")


def parse_timeout(value: bytes) -> float:
    """Seconds of a `grpc-timeout`.

    Raises:
        Invalid: it is not one.
    """
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise bad_request(
            f"grpc-timeout is {value.decode('latin-1')!r}: write up to eight digits and one of H, M, S, m, u, n"
        )
    return int(found[1]) * _UNITS[found[2]]
