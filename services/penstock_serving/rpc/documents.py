"""What REST answers with a document, as gRPC has it: each message is made from that document, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.json_format import ParseDict

from penstock.errors import Invalid
from penstock.protocol.refusals import Refusal, bad_request
from penstock.protocol.server import TRACES_ARE_SET
from penstock_serving.rpc import schema
from penstock_serving.rpc.names import HEALTH, INFERENCE

Writer = Callable[[Any], Any]
"""Given a document, the message."""


def read_message(kind: Any, message: bytes) -> Any:
    """A question.

    Raises:
        Invalid: it is no message of this kind.
    """
    try:
        return kind.FromString(message)
    except schema.DecodeError as error:
        raise bad_request(f"the message is no {kind.DESCRIPTOR.full_name}: {error}") from error


def _write(kind: Any) -> Writer:
    """What has the names of the message's fields goes over; what else a document tells, gRPC has no field for."""
    return lambda document: ParseDict(document, kind(), ignore_unknown_fields=True)


def _write_configuration(document: Any) -> Any:
    return _write(schema.ModelConfigResponse)({"config": document})


def _write_index(document: Any) -> Any:
    return _write(schema.RepositoryIndexResponse)({"models": document})


def _write_trace_settings(document: Any) -> Any:
    settings = {name: {"value": value if type(value) is list else [value]} for name, value in document.items()}
    return _write(schema.TraceSettingResponse)({"settings": settings})


WRITERS: Final[Mapping[str, Writer]] = {
    f"/{INFERENCE}/ServerMetadata": _write(schema.ServerMetadataResponse),
    f"/{INFERENCE}/ModelMetadata": _write(schema.ModelMetadataResponse),
    f"/{INFERENCE}/ModelConfig": _write_configuration,
    f"/{INFERENCE}/ModelStatistics": _write(schema.ModelStatisticsResponse),
    f"/{INFERENCE}/RepositoryIndex": _write_index,
    f"/{INFERENCE}/TraceSetting": _write_trace_settings,
}
"""By method, for those that REST answers with a document."""


def read_index_question(message: bytes) -> bool:
    """Whether only models that are ready are asked for.

    Raises:
        Invalid: the message is no `RepositoryIndexRequest`, or of one repository.
    """
    asked = read_message(schema.RepositoryIndexRequest, message)
    if asked.repository_name:
        raise bad_request(
            f"'repository_name' is {asked.repository_name!r}, but models are in namespaces here: leave it empty, and name "
            "the namespace by the metadata penstock-namespace"
        )
    ready: bool = asked.ready
    return ready


def read_trace_question(message: bytes) -> str:
    """The model whose trace settings are asked for; empty: the server's.

    Raises:
        Invalid: the message is no `TraceSettingRequest`, or would change what is set.
    """
    asked = read_message(schema.TraceSettingRequest, message)
    if asked.settings:
        named = ", ".join(sorted(asked.settings))
        raise Invalid(
            Refusal.METHOD_NOT_ALLOWED, f"TraceSetting tells settings and changes none ({named}): {TRACES_ARE_SET}"
        )
    name: str = asked.model_name
    return name


_NO_LOADING: Final = (
    "models are deployed by `kubectl apply` and taken away by `kubectl delete`; they sleep and wake by themselves"
)
_NO_SHARED_MEMORY: Final = "replicas are on other machines than their clients: send tensors in the message"
_REFUSED: Final[Mapping[str, str]] = {
    f"/{INFERENCE}/RepositoryModelLoad": _NO_LOADING,
    f"/{INFERENCE}/RepositoryModelUnload": _NO_LOADING,
    **{
        f"/{INFERENCE}/{kind}SharedMemory{asked}": _NO_SHARED_MEMORY
        for kind in ("System", "Cuda")
        for asked in ("Status", "Register", "Unregister")
    },
    f"/{INFERENCE}/LogSettings": "logs are set where a process is started, by the environment and the chart's values",
    f"/{HEALTH}/Watch": "ask Check again, or watch a gateway",
}


def no_method(who: str, call: str) -> Invalid:
    """An error for a method that is not there.

    Args:
        who: says so, such as `this replica`.
        call: the method's path.
    """
    hint = _REFUSED.get(call, "reflection lists those that there are")
    return Invalid(Refusal.METHOD_NOT_ALLOWED, f"{who} has no method {call}: {hint}")
