"""Calls with streams of messages: each message is answered by one, in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from penstock.errors import Invalid, PenstockError
from penstock.protocol.datatypes import Array
from penstock.protocol.refusals import Refusal
from penstock.telemetry.spans import SpanContext
from penstock_serving.replica.call import Call
from penstock_serving.replica.front.exchange import Responder
from penstock_serving.replica.grpc.answers import MessageEncoder, varint
from penstock_serving.replica.grpc.call import END, HEAD, RpcExchange
from penstock_serving.rpc.codes import code_of, refusal_lines
from penstock_serving.rpc.framing import MessageReader, frame
from penstock_serving.rpc.schema import ModelStreamInferResponse

_OPENING: Final = HEAD + b"Trailer: grpc-status\r\nTransfer-Encoding: chunked\r\n"
_ANSWER: Final = b"\x12"
"""The tag of `infer_response`."""


class RpcStream(RpcExchange):
    """A call with a stream of messages each way.

    Args:
        take: is given each message, and has `answer_next` called for it once, in the messages' order.
    """

    __slots__ = ("_begun", "_ended", "_owed", "_reader", "_take", "members")

    streams = True

    def __init__(
        self,
        connection: Responder,
        method: bytes,
        url: bytes,
        received_ns: int,
        take: Callable[[RpcStream, bytes], None],
    ) -> None:
        RpcExchange.__init__(self, connection, method, url, received_ns)
        self.unsent = bytearray()
        self.members: deque[StreamedCall] = deque()
        """Those that are not answered yet, in their order."""
        self._take = take
        self._reader = MessageReader()
        self._begun = False
        self._ended = False
        """No further message comes, or is taken."""

    def receive(self, chunk: bytes) -> None:
        """Hand messages on as they come."""
        for compressed, message in self._reader.feed(chunk, self.connection.max_body_bytes):
            if not self._ended:
                self._take(self, self.decompress_message(message) if compressed else message)

    def finish(self) -> None:
        """The client's last message has come.

        Raises:
            Invalid: it is not whole.
        """
        self._reader.check_end()
        self._ended = True
        self.flush()

    def leave(self) -> None:
        """Take no more messages, and end once those that came are answered."""
        if not self._ended:
            self._ended = True
            self.reason = Refusal.DRAINING
            self.flush()

    def send_message(self, message: bytes) -> None:
        """Send a message."""
        framed = frame(message)
        self.connection.transmit_part(self, b"%b%x\r\n%b\r\n" % (self._opening(), len(framed), framed))

    def flush(self) -> None:
        """Send the answers whose turn it is; the status once all are sent."""
        while self.members and (answer := self.members[0].wire) is not None:
            self.members.popleft()
            self.send_message(answer)
        if self._ended and not self.members and self.response is None:
            if self.reason == Refusal.DRAINING:
                self.refuse(Invalid(Refusal.DRAINING, "this replica is leaving: open the stream anew"))
                return
            self.status = 200
            self.connection.transmit(self, self._opening() + END)

    def refuse(self, error: PenstockError) -> None:
        """End with a status."""
        self._ended = True
        if not self._begun:
            RpcExchange.refuse(self, error)
            return
        self.status = 200
        self.code = code_of(error)
        self.connection.transmit(self, b"0\r\n%b\r\n" % refusal_lines(error))

    def _opening(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return _OPENING + (b"\r\n" if self.keep_alive else b"Connection: close\r\n\r\n")


class StreamedCall(Call):
    """A request of a stream."""

    __slots__ = ("encoder", "stream", "wire")

    def __init__(self, stream: RpcStream, encoder: MessageEncoder, received_ns: int) -> None:
        Call.__init__(self, received_ns)
        self.stream = stream
        self.encoder = encoder
        self.sampled = stream.sampled
        self.wire: bytes | None = None

    def encode(self, outputs: Mapping[str, Array]) -> None:
        """Make the message."""
        if self.request is not None:
            answer = b"".join(self.encoder.encode(self.request, outputs))
            self.wire = b"%b%b%b" % (_ANSWER, varint(len(answer)), answer)

    def send(self) -> None:
        """Send it, as soon as those before have been."""
        self.stream.flush()

    def refuse(self, error: PenstockError) -> None:
        """Say why there is no answer; the stream goes on."""
        self.wire = ModelStreamInferResponse(error_message=error.message).SerializeToString()
        self.stream.flush()

    def caller(self) -> SpanContext | None:
        """The stream's."""
        return self.stream.caller()

    def attributes(self) -> dict[str, str | int | float | bool]:
        """The stream's."""
        return self.stream.attributes()

    def failure(self) -> str:
        """The reason."""
        return self.reason
