"""The services of gRPC for the one model that the replica serves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from penstock.errors import Invalid, PenstockError
from penstock.protocol.refusals import Deferred, QueueFull, Refusal
from penstock.serving.control import ReplicaSettings
from penstock_serving.replica.call import defect
from penstock_serving.replica.documents import ReplicaDocuments
from penstock_serving.replica.front.answering import ServiceFront
from penstock_serving.replica.front.exchange import HttpExchange, Responder
from penstock_serving.replica.grpc.answers import MessageEncoder
from penstock_serving.replica.grpc.call import RpcExchange
from penstock_serving.replica.grpc.messages import MessageDecoder
from penstock_serving.replica.grpc.streams import RpcStream, StreamedCall
from penstock_serving.replica.model.loading import LoadedModel
from penstock_serving.replica.service import InferenceService
from penstock_serving.rpc import schema
from penstock_serving.rpc.documents import WRITERS, no_method, read_index_question, read_message, read_trace_question
from penstock_serving.rpc.names import HEALTH, INFERENCE, REFLECTION, REFLECTION_ALPHA, SERVICES
from penstock_serving.rpc.reflection import answer_reflection

logger = logging.getLogger(__name__)

_MOST_OPEN: Final = 1024
"""Requests of one stream that are not answered yet."""

Method = Callable[[RpcExchange], None]
Taker = Callable[[RpcStream, bytes], None]


class RpcFront(ServiceFront):
    """Hands calls on to the service. All methods are called on the event loop."""

    draining = False

    def __init__(
        self, settings: ReplicaSettings, model: LoadedModel, service: InferenceService, documents: ReplicaDocuments
    ) -> None:
        self._documents = documents
        super().__init__(service)
        self._decoder = MessageDecoder(
            settings.namespace, settings.model, settings.version, model.signature, model.trial.joining
        )
        self._encoder = MessageEncoder(settings.model, settings.version)
        self._methods: Mapping[bytes, Method] = {
            _path(INFERENCE, "ModelInfer"): self._infer,
            _path(INFERENCE, "ServerLive"): self._server_live,
            _path(INFERENCE, "ServerReady"): self._server_ready,
            _path(INFERENCE, "ModelReady"): self._model_ready,
            _path(INFERENCE, "ServerMetadata"): self._server_metadata,
            _path(INFERENCE, "ModelMetadata"): self._model_metadata,
            _path(INFERENCE, "ModelConfig"): self._model_configuration,
            _path(INFERENCE, "ModelStatistics"): self._model_statistics,
            _path(INFERENCE, "RepositoryIndex"): self._repository_index,
            _path(INFERENCE, "TraceSetting"): self._trace_settings,
            _path(HEALTH, "Check"): self._health,
        }
        self._streams: Mapping[bytes, Taker] = {
            _path(INFERENCE, "ModelStreamInfer"): self._infer_next,
            _path(REFLECTION, "ServerReflectionInfo"): _reflect,
            _path(REFLECTION_ALPHA, "ServerReflectionInfo"): _reflect,
        }

    # What a connection calls.

    def exchange(self, connection: Responder, method: bytes, url: bytes, received_ns: int) -> HttpExchange:
        """A call begins."""
        take = self._streams.get(url)
        if take is None:
            return RpcExchange(connection, method, url, received_ns)
        return RpcStream(connection, method, url, received_ns, take)

    def refuse_early(self, exchange: HttpExchange) -> Deferred | None:
        """Refuse what would be answered too late, before its message is read."""
        if self._service.executor.batcher.has_room() or self._methods.get(exchange.url) != self._infer:
            return None
        return self._service.refuse_early(exchange)

    def _carry_out(self, exchange: HttpExchange) -> None:
        if isinstance(exchange, RpcStream):
            exchange.finish()
        elif isinstance(exchange, RpcExchange):
            self._find(exchange)(exchange)

    def cancel(self, exchange: HttpExchange) -> None:
        """The client of a call has gone."""
        if isinstance(exchange, RpcStream):
            for member in exchange.members:
                self._service.cancel(member)
        else:
            self._service.cancel(exchange)

    def _find(self, exchange: RpcExchange) -> Method:
        method = self._methods.get(exchange.url)
        if method is None:
            raise no_method("this replica", exchange.url.partition(b"?")[0].decode("latin-1"))
        return method

    # Methods.

    def _infer(self, exchange: RpcExchange) -> None:
        request = self._decoder.decode(*exchange.message())
        exchange.body = b""
        timeout = exchange.timeout_seconds
        if timeout is not None and (request.timeout_seconds is None or timeout < request.timeout_seconds):
            request.timeout_seconds = timeout
        exchange.encoder = self._encoder
        self._service.infer(exchange, request, lone=exchange.connection.lone)

    def _infer_next(self, stream: RpcStream, message: bytes) -> None:
        if len(stream.members) >= _MOST_OPEN:
            raise QueueFull(1)
        call = StreamedCall(stream, self._encoder, time.monotonic_ns())
        stream.members.append(call)
        try:
            self._service.infer(call, self._decoder.decode(message, 0, len(message)))
        except PenstockError as error:
            self._service.fail(call, error)
        except Exception:
            logger.exception("a request of a stream failed by a defect of the replica")
            self._service.fail(call, defect())

    def _server_live(self, exchange: RpcExchange) -> None:
        _reply(exchange, schema.ServerLiveResponse(live=True))

    def _server_ready(self, exchange: RpcExchange) -> None:
        _reply(exchange, schema.ServerReadyResponse(ready=self._service.ready))

    def _model_ready(self, exchange: RpcExchange) -> None:
        self._check_asked(exchange, schema.ModelReadyRequest)
        _reply(exchange, schema.ModelReadyResponse(ready=self._service.ready))

    def _server_metadata(self, exchange: RpcExchange) -> None:
        _tell(exchange, self._documents.server_metadata())

    def _model_metadata(self, exchange: RpcExchange) -> None:
        self._check_asked(exchange, schema.ModelMetadataRequest)
        _tell(exchange, self._documents.model_metadata())

    def _model_configuration(self, exchange: RpcExchange) -> None:
        self._check_asked(exchange, schema.ModelConfigRequest)
        _tell(exchange, self._documents.model_configuration())

    def _model_statistics(self, exchange: RpcExchange) -> None:
        self._check_asked(exchange, schema.ModelStatisticsRequest)
        _tell(exchange, self._documents.model_statistics())

    def _repository_index(self, exchange: RpcExchange) -> None:
        ready_only = read_index_question(_message(exchange))
        _tell(exchange, self._documents.repository_index(ready_only=ready_only))

    def _trace_settings(self, exchange: RpcExchange) -> None:
        if name := read_trace_question(_message(exchange)):
            self._decoder.check_asked(name, "")
        _tell(exchange, self._documents.trace_settings())

    def _check_asked(self, exchange: RpcExchange, kind: Any) -> None:
        asked = read_message(kind, _message(exchange))
        self._decoder.check_asked(asked.name, asked.version)

    def _health(self, exchange: RpcExchange) -> None:
        asked = read_message(schema.HealthCheckRequest, _message(exchange)).service
        if asked not in ("", *SERVICES):
            raise Invalid(Refusal.NOT_FOUND, f"there is no service '{asked}' here")
        status = "SERVING" if self._service.ready else "NOT_SERVING"
        _reply(exchange, schema.HealthCheckResponse(status=status))


def _path(service: str, method: str) -> bytes:
    return f"/{service}/{method}".encode()


def _message(exchange: RpcExchange) -> bytes:
    body, start, end = exchange.message()
    return bytes(body[start:end])


def _tell(exchange: RpcExchange, document: bytes) -> None:
    """Answer with what REST would, as the method has it."""
    _reply(exchange, WRITERS[exchange.url.decode("latin-1")](orjson.loads(document)))


def _reply(exchange: RpcExchange, message: Any) -> None:
    exchange.answer([message.SerializeToString()])


def _reflect(stream: RpcStream, message: bytes) -> None:
    stream.send_message(answer_reflection(stream.url, message))
