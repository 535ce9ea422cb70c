"""Calls of gRPC that HAProxy hands to the agent.

They are answered as the requests of REST's form that stand for them; what those would be told is then written as gRPC has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import hdrs, web
from multidict import CIMultiDict

from penstock.errors import Invalid
from penstock_serving.rpc import schema
from penstock_serving.rpc.codes import STATUS_CODES, RpcCode, refusal_lines, status_lines
from penstock_serving.rpc.framing import MessageReader, frame
from penstock_serving.rpc.names import HEALTH, INFERENCE, REFLECTION, REFLECTION_ALPHA
from penstock_serving.rpc.reflection import answer_reflection

CONTENT_TYPE: Final = "application/grpc"
STREAM: Final = f"/{INFERENCE}/ModelStreamInfer"
OPEN_ANEW: Final = "a stream waits for no replica and no check of its token: both are there now, open it anew"
_STATUS: Final = "grpc-status"
_REFLECTIONS: Final = (f"/{REFLECTION}/ServerReflectionInfo", f"/{REFLECTION_ALPHA}/ServerReflectionInfo")
_MOST_OF_A_QUESTION: Final = 4096
_UNSENT_BYTES: Final = 65_536
_LOOK_SECONDS: Final = 0.01
_KEPT: Final = ("traceresponse", hdrs.WWW_AUTHENTICATE, "cache-status")
_HEAD: Final = b"HTTP/1.1 %d -\r\nContent-Type: application/grpc\r\nConnection: close\r\n"

Writer = Callable[[int, dict[str, Any]], Any]
"""Given HTTP's status and the document, the message; None: it is a refusal."""


def _writer_of(kind: Any, field: str) -> Writer:
    def write(status: int, _: dict[str, Any]) -> Any:
        return (
            kind(**{field: status == HTTPStatus.OK})
            if status in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)
            else None
        )

    return write


def _health(status: int, _: dict[str, Any]) -> Any:
    return schema.HealthCheckResponse(status="SERVING" if status == HTTPStatus.OK else "NOT_SERVING")


def _server_metadata(status: int, document: dict[str, Any]) -> Any:
    return schema.ServerMetadataResponse(**document) if status == HTTPStatus.OK else None


def _model_metadata(status: int, document: dict[str, Any]) -> Any:
    return metadata_message(document) if status == HTTPStatus.OK else None


def metadata_message(document: Mapping[str, Any]) -> Any:
    """The message of a model's metadata, from the document of it."""
    fields = {name: document[name] for name in ("name", "versions", "platform") if name in document}
    tensors = {
        name: [
            {"name": each["name"], "datatype": each["datatype"], "shape": each.get("shape") or ()}
            for each in document.get(name, ())
        ]
        for name in ("inputs", "outputs")
    }
    return schema.ModelMetadataResponse(**fields, **tensors)


_LOOKS: Final[Mapping[str, Writer]] = {
    f"/{INFERENCE}/ServerLive": _writer_of(schema.ServerLiveResponse, "live"),
    f"/{INFERENCE}/ServerReady": _writer_of(schema.ServerReadyResponse, "ready"),
    f"/{INFERENCE}/ServerMetadata": _server_metadata,
    f"/{INFERENCE}/ModelReady": _writer_of(schema.ModelReadyResponse, "ready"),
    f"/{INFERENCE}/ModelMetadata": _model_metadata,
    f"/{HEALTH}/Check": _health,
}
"""What runs no model. REST asks it with GET."""
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
        if wire and (transport := request.transport) is not None:
            transport.write(wire)
            while not transport.is_closing() and transport.get_write_buffer_size() > _UNSENT_BYTES:  # noqa: ASYNC110 -- aiohttp tells nobody else
                await asyncio.sleep(_LOOK_SECONDS)

    async def write_eof(self, data: bytes = b"") -> None:
        """All is sent."""


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
    write = _LOOKS.get(call)
    if write is None and call not in _RUNS:
        return refusal(
            HTTPStatus.METHOD_NOT_ALLOWED, f"this gateway has no method {call}; reflection lists those that there are"
        )
    answered = await answer(request if write is None else request.clone(method=hdrs.METH_GET))
    return write_call(answered, write)


def write_call(answered: web.StreamResponse, write: Writer | None = None) -> web.StreamResponse:
    """What a request was told, as gRPC has it."""
    if not isinstance(answered, web.Response):
        return answered
    body = bytes(answered.body) if isinstance(answered.body, (bytes, bytearray)) else b""
    kept = CIMultiDict({name: answered.headers[name] for name in _KEPT if name in answered.headers})
    if answered.content_type == CONTENT_TYPE:
        return _handed_on(answered, kept, body)
    document = orjson.loads(body) if body else {}
    message = write(answered.status, document) if write is not None else None
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
    transport, reader = request.transport, MessageReader()
    if transport is None:
        return refusal(HTTPStatus.BAD_REQUEST, "the client has gone")
    transport.write(_HEAD % HTTPStatus.OK + b"Transfer-Encoding: chunked\r\n\r\n")
    ended = b"grpc-status: 0\r\n"
    try:
        async for chunk in request.content.iter_any():
            for _, question in reader.feed(chunk, _MOST_OF_A_QUESTION):
                framed = frame(answer_reflection(call.encode(), question))
                transport.write(b"%x\r\n%b\r\n" % (len(framed), framed))
    except Invalid as error:
        ended = refusal_lines(error)
    transport.write(b"0\r\n%b\r\n" % ended)
    return CallResponse.stand_for_sent(HTTPStatus.OK)
