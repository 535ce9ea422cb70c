"""Calls of gRPC that HAProxy hands to the agent.

They are answered as the requests of REST's form that stand for them; what those would be told is then written as gRPC has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import hdrs, web
from multidict import CIMultiDict

from penstock.errors import Invalid
from penstock.protocol.refusals import Refusal, status_of
from penstock_serving.rpc import schema
from penstock_serving.rpc.codes import STATUS_CODES, RpcCode, refusal_lines, status_lines
from penstock_serving.rpc.documents import (
    WRITERS,
    Writer,
    no_method,
    read_index_question,
    read_message,
    read_trace_question,
)
from penstock_serving.rpc.framing import PREFIX_BYTES, MessageReader, frame, single_message
from penstock_serving.rpc.names import HEALTH, INFERENCE, REFLECTION, REFLECTION_ALPHA, SERVICES
from penstock_serving.rpc.reflection import answer_reflection

CONTENT_TYPE: Final = "application/grpc"
BODY: Final = "body-of-rest"
"""Where a request that stands for a call has the body that REST's would have."""
STREAM: Final = f"/{INFERENCE}/ModelStreamInfer"
_STATUS: Final = "grpc-status"
_REFLECTIONS: Final = (f"/{REFLECTION}/ServerReflectionInfo", f"/{REFLECTION_ALPHA}/ServerReflectionInfo")
_MOST_OF_A_QUESTION: Final = 4096
_UNSENT_BYTES: Final = 65_536
_LOOK_SECONDS: Final = 0.01
_KEPT: Final = ("traceresponse", hdrs.WWW_AUTHENTICATE, "cache-status")
_HEAD: Final = b"HTTP/1.1 %d -\r\nContent-Type: application/grpc\r\nConnection: close\r\n"

Answer = Callable[[int, Any], Any]
"""Given HTTP's status and the document, the message; None: it is a refusal."""
Question = Callable[[bytes], tuple[str, bytes]]
"""Given a message, how REST asks for the same: its method and body."""


@dataclass(frozen=True, slots=True)
class _Look:
    """A call that runs no model."""

    answer: Answer
    ask: Question | None = None
    """None: REST asks it with GET, whatever its message says beside the model's name, by which it came here."""


def _yes_or_no(kind: Any, field: str) -> Answer:
    def answer(status: int, _: Any) -> Any:
        known = status in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)
        return kind(**{field: status == HTTPStatus.OK}) if known else None

    return answer


def _health(status: int, _: Any) -> Any:
    return schema.HealthCheckResponse(status="SERVING" if status == HTTPStatus.OK else "NOT_SERVING")


def _write_where_well(write: Writer) -> Answer:
    return lambda status, document: write(document) if status == HTTPStatus.OK else None


def _ask_index(message: bytes) -> tuple[str, bytes]:
    return hdrs.METH_POST, orjson.dumps({"ready": read_index_question(message)})


def _ask_trace_settings(message: bytes) -> tuple[str, bytes]:
    read_trace_question(message)
    return hdrs.METH_GET, b""


def _ask_health(message: bytes) -> tuple[str, bytes]:
    asked = read_message(schema.HealthCheckRequest, message).service
    if asked not in ("", *SERVICES):
        raise Invalid(Refusal.NOT_FOUND, f"there is no service '{asked}' here")
    return hdrs.METH_GET, b""


_QUESTIONS: Final[Mapping[str, Question]] = {
    f"/{INFERENCE}/RepositoryIndex": _ask_index,
    f"/{INFERENCE}/TraceSetting": _ask_trace_settings,
}
_LOOKS: Final[Mapping[str, _Look]] = {
    f"/{INFERENCE}/ServerLive": _Look(_yes_or_no(schema.ServerLiveResponse, "live")),
    f"/{INFERENCE}/ServerReady": _Look(_yes_or_no(schema.ServerReadyResponse, "ready")),
    f"/{INFERENCE}/ModelReady": _Look(_yes_or_no(schema.ModelReadyResponse, "ready")),
    f"/{HEALTH}/Check": _Look(_health, _ask_health),
    **{call: _Look(_write_where_well(write), _QUESTIONS.get(call)) for call, write in WRITERS.items()},
}
_RUNS: Final = (f"/{INFERENCE}/ModelInfer", STREAM)


class CallResponse(web.StreamResponse):
    """An answer to a call, written by hand: aiohttp sends no trailers. HTTP's status says what became of it, for HAProxy's log.

    Args:
        head: from the status line to the last header line.
        body: a framed message; None: the status is in the head.
    """

    def __init__(self, status: int, head: bytes, body: bytes | None) -> None:
        super().__init__(status=status)
        if body is None:
            self._wire = head + b"Content-Length: 0\r\n\r\n"
        else:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self._wire = b"%bTransfer-Encoding: chunked\r\n\r\n%b0\r\ngrpc-status: 0\r\n\r\n" % (head, chunk)

    @classmethod
    def stand_for_sent(cls, status: int) -> CallResponse:
        """Stands for an answer that is sent already."""
        made = cls(status, b"", None)
        made._wire = b""
        return made

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send it. A second time, nothing is left to send."""
        wire, self._wire = self._wire, b""
        if wire:
            await send_raw(request, wire)

    async def write_eof(self, data: bytes = b"") -> None:
        """All is sent."""


async def send_raw(request: web.BaseRequest, wire: bytes) -> None:
    """Send bytes to HAProxy, no faster than it takes them."""
    transport = request.transport
    if transport is None:
        return
    transport.write(wire)
    while not transport.is_closing() and transport.get_write_buffer_size() > _UNSENT_BYTES:  # noqa: ASYNC110 -- aiohttp tells nobody else
        await asyncio.sleep(_LOOK_SECONDS)


async def open_stream(request: web.BaseRequest) -> None:
    """Send the head of an answer whose messages are chunks of its body, and whose status is the trailer."""
    await send_raw(request, _HEAD % HTTPStatus.OK + b"Transfer-Encoding: chunked\r\n\r\n")


async def answer_call(
    request: web.Request, call: str, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer a call.

    Args:
        request: as HAProxy made it.
        call: the path of the client's.
        answer: answers requests of REST's form.
    """
    if call in _REFLECTIONS:
        return await _reflect(request, call)
    if call in _RUNS:
        return write_call(await answer(request))
    look = _LOOKS.get(call)
    try:
        if look is None:
            raise no_method("this gateway", call)
        method, body = (hdrs.METH_GET, b"") if look.ask is None else look.ask(await read_question(request))
    except Invalid as error:
        return refusal(status_of(error), error.message)
    asked = request.clone(method=method)
    asked[BODY] = body
    return write_call(await answer(asked), look.answer)


async def read_question(request: web.Request) -> bytes:
    """The message of a look.

    Raises:
        Invalid: there is none, it is large, or it is compressed.
    """
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > _MOST_OF_A_QUESTION:
            raise Invalid(Refusal.LENGTH_TOO_LARGE, f"the message is over {_MOST_OF_A_QUESTION} bytes")
    compressed, end = single_message(body)
    if compressed:
        raise Invalid(Refusal.UNSUPPORTED_ENCODING, "send this message as it is: only a model's may be compressed")
    return bytes(body[PREFIX_BYTES:end])


def write_call(answered: web.StreamResponse, answer: Answer | None = None) -> web.StreamResponse:
    """What a request was told, as gRPC has it."""
    if not isinstance(answered, web.Response):
        return answered
    body = bytes(answered.body) if isinstance(answered.body, (bytes, bytearray)) else b""
    kept = CIMultiDict({name: answered.headers[name] for name in _KEPT if name in answered.headers})
    if answered.content_type == CONTENT_TYPE:
        return _handed_on(answered, kept, body)
    document = orjson.loads(body) if body else {}
    message = answer(answered.status, document) if answer is not None else None
    if message is not None:
        return CallResponse(HTTPStatus.OK, _HEAD % HTTPStatus.OK + _lines(kept), frame(message.SerializeToString()))
    return refusal(answered.status, str(document.get("error", "")), kept)


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> CallResponse:
    """An answer that is a status alone."""
    code = STATUS_CODES.get(status, RpcCode.INTERNAL)
    return CallResponse(status, _HEAD % status + _lines(headers or {}) + status_lines(code, message), None)


def _handed_on(answered: web.Response, kept: CIMultiDict[str], body: bytes) -> CallResponse:
    """A replica's answer."""
    if answered.headers.get(_STATUS) == "0":
        return CallResponse(answered.status, _HEAD % answered.status + _lines(kept), body)
    told = {name: value for name, value in answered.headers.items() if name.lower().startswith("grpc-")}
    return CallResponse(answered.status, _HEAD % answered.status + _lines({**kept, **told}), None)


def _lines(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1", "replace")


async def _reflect(request: web.Request, call: str) -> web.StreamResponse:
    """Answer questions as they come: a client may ask the next one once it has the answer."""
    reader = MessageReader()
    await open_stream(request)
    ended = b"grpc-status: 0\r\n"
    try:
        async for chunk in request.content.iter_any():
            for _, question in reader.feed(chunk, _MOST_OF_A_QUESTION):
                framed = frame(answer_reflection(call.encode(), question))
                await send_raw(request, b"%x\r\n%b\r\n" % (len(framed), framed))
    except Invalid as error:
        ended = refusal_lines(error)
    await send_raw(request, b"0\r\n%b\r\n" % ended)
    return CallResponse.stand_for_sent(HTTPStatus.OK)
