"""One call over gRPC, and its answer: a message in a chunked body, and the status after it, which a gateway makes gRPC's trailers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.errors import Invalid, PenstockError
from penstock.protocol.datatypes import Array
from penstock.protocol.refusals import Refusal, bad_request, status_of
from penstock.telemetry import names
from penstock_serving.replica.front.codings import decompress, knows_coding
from penstock_serving.replica.front.exchange import HttpExchange, Responder
from penstock_serving.replica.front.statuses import STATUS_LINES
from penstock_serving.replica.grpc.answers import MessageEncoder
from penstock_serving.rpc.codes import RpcCode, code_of, refusal_lines
from penstock_serving.rpc.framing import PREFIX_BYTES, parse_timeout, single_message

CONTENT_TYPE: Final = b"Content-Type: application/grpc\r\n"
HEAD: Final = STATUS_LINES[200] + CONTENT_TYPE
_CHUNKED: Final = b"Trailer: grpc-status\r\nTransfer-Encoding: chunked\r\n"
_CLOSE: Final = b"Connection: close\r\n"
END: Final = b"0\r\ngrpc-status: 0\r\n\r\n"
_MOST_SAID: Final = 40
"""Bytes of a header that a refusal says again."""


class RpcExchange(HttpExchange):
    """A call with one message each way."""

    __slots__ = ("code", "parts", "takes_trailers", "timeout_seconds")

    rpc = True
    encoder: MessageEncoder
    parts: list[bytes]

    def __init__(self, connection: Responder, method: bytes, url: bytes, received_ns: int) -> None:
        HttpExchange.__init__(self, connection, method, url, received_ns)
        self.timeout_seconds: float | None = None
        """What the caller allows, from the call's arrival."""
        self.takes_trailers = True
        """Whether the status comes after the message, as gRPC has it; else it is a header."""
        self.code = RpcCode.OK

    def take_headers(self, headers: Mapping[bytes, bytes]) -> None:
        """Read `grpc-timeout`, `grpc-encoding` and `te`.

        Raises:
            Invalid: the first is none, or the second says that messages may be compressed in a way that is not known.
        """
        self.takes_trailers = headers.get(b"te", b"").lower() == b"trailers"
        if timeout := headers.get(b"grpc-timeout"):
            self.timeout_seconds = parse_timeout(timeout)
        encoding = headers.get(b"grpc-encoding")
        if encoding and encoding != b"identity":
            if not knows_coding(encoding):
                named = encoding.decode("latin-1")[:_MOST_SAID]
                raise Invalid(
                    Refusal.UNSUPPORTED_ENCODING, f"send messages as they are, in gzip, or in deflate, not in {named!r}"
                )
            self.coding = encoding

    def message(self) -> tuple[bytes | bytearray, int, int]:
        """What holds the call's one message, where that begins, and where it ends.

        Raises:
            Invalid: there is none, or not one alone.
        """
        compressed, end = single_message(self.body)
        if not compressed:
            return self.body, PREFIX_BYTES, end
        plain = self.decompress_message(self.body[PREFIX_BYTES:end])
        return plain, 0, len(plain)

    def decompress_message(self, message: bytes | bytearray) -> bytes:
        """A message as it was before it was compressed.

        Raises:
            Invalid: it is not, or becomes too large.
        """
        if not self.coding:
            raise bad_request("a message is compressed, but no grpc-encoding says how")
        return decompress(message, self.coding, self.connection.max_body_bytes)

    def encode(self, outputs: Mapping[str, Array]) -> None:
        """Make the message, in parts."""
        if self.request is not None:
            self.parts = self.encoder.encode(self.request, outputs)

    def send(self) -> None:
        """Answer with the message."""
        self.answer(self.parts)

    def answer(self, parts: list[bytes]) -> None:
        """Answer with a message of these parts."""
        self.status = 200
        length = sum(map(len, parts))
        if not self.takes_trailers:
            lines = HEAD + self.answer_lines() + b"grpc-status: 0\r\n" + (b"" if self.keep_alive else _CLOSE)
            opening = b"%bContent-Length: %d\r\n\r\n\0%b" % (lines, length + PREFIX_BYTES, length.to_bytes(4, "big"))
            self.connection.transmit(self, b"".join((opening, *parts)))
            return
        lines = _CHUNKED if self.keep_alive else _CHUNKED + _CLOSE
        opening = b"%b%b%b\r\n%x\r\n\0%b" % (
            HEAD,
            self.answer_lines(),
            lines,
            length + PREFIX_BYTES,
            length.to_bytes(4, "big"),
        )
        self.connection.transmit(self, b"".join((opening, *parts, b"\r\n", END)))

    def refuse(self, error: PenstockError) -> None:
        """Answer with a status alone.

        HTTP's says the same, so that a gateway counts it as it does others; what the client gets is 200, as gRPC has it.
        """
        self.status = status_of(error)
        self.code = code_of(error)
        headers = CONTENT_TYPE + self.answer_lines() + refusal_lines(error)
        self.connection.respond(self, self.status, headers, b"")

    def attributes(self) -> dict[str, str | int | float | bool]:
        """By OpenTelemetry's conventions for gRPC."""
        service, _, method = self.url.decode("latin-1").removeprefix("/").partition("/")
        found: dict[str, str | int | float | bool] = {
            names.ATTR_RPC_SYSTEM: "grpc",
            names.ATTR_RPC_SERVICE: service,
            names.ATTR_RPC_METHOD: method,
            names.ATTR_RPC_GRPC_STATUS: int(self.code),
        }
        if self.reason and self.code is not RpcCode.OK:
            found[names.ATTR_ERROR_TYPE] = self.code.name
        return found

    def failure(self) -> str:
        """The status."""
        return f"gRPC {self.code.name}"
