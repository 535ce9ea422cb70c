"""gRPC's reflection: which services there are, and what their messages look like."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FileDescriptor

from penstock.protocol.refusals import bad_request
from penstock_serving.rpc.codes import RpcCode
from penstock_serving.rpc.names import SERVICES
from penstock_serving.rpc.schema import POOL, DecodeError, message_class


def answer_reflection(url: bytes, message: bytes) -> bytes:
    """The answer to one question.

    Args:
        url: the method's path, which says in which of its two forms the service was asked.
        message: a `ServerReflectionRequest`.

    Raises:
        Invalid: it is none.
    """
    package = url.decode("latin-1").removeprefix("/").rpartition(".ServerReflection/")[0]
    kind = message_class(f"{package}.ServerReflectionRequest")
    try:
        asked = kind.FromString(message)
    except DecodeError as error:
        raise bad_request(f"the message is no {kind.DESCRIPTOR.full_name}: {error}") from error
    answer = message_class(f"{package}.ServerReflectionResponse")(valid_host=asked.host, original_request=asked)
    _fill(answer, asked)
    serialized: bytes = answer.SerializeToString()
    return serialized


def _fill(answer: Any, asked: Any) -> None:
    try:
        match asked.WhichOneof("message_request"):
            case "list_services":
                for name in SERVICES:
                    answer.list_services_response.service.add(name=name)
            case "file_by_filename":
                _give(answer, POOL.FindFileByName(asked.file_by_filename))
            case "file_containing_symbol":
                _give(answer, POOL.FindFileContainingSymbol(asked.file_containing_symbol))
            case _:
                _refuse(answer, RpcCode.UNIMPLEMENTED, "there are no extensions here")
    except KeyError:
        _refuse(answer, RpcCode.NOT_FOUND, "there is no such file or symbol here")


def _give(answer: Any, file: FileDescriptor) -> None:
    # No file of ours needs another.
    answer.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)


def _refuse(answer: Any, code: RpcCode, message: str) -> None:
    answer.error_response.error_code = code
    answer.error_response.error_message = message
