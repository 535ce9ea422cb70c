"""The messages are the published protocol's, and live beside a client's of the same names."""

from __future__ import annotations

from typing import Any

import pytest
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from penstock_serving.rpc import schema
from penstock_serving.rpc.names import INFERENCE

OURS = [
    message
    for file in ("inference/inference.proto", "grpc/reflection/v1alpha/reflection.proto")
    for message in schema.POOL.FindFileByName(file).message_types_by_name.values()
]
TOLD_IN_PART = {
    f"inference.{name}"
    for name in (
        "ModelConfig",
        "ModelVersionPolicy",
        "ModelInput",
        "ModelOutput",
        "ModelDynamicBatching",
        "ModelStatistics",
    )
}
"""Messages that clients only read, with more fields than there is to tell."""
THEIRS: dict[str, Any] = {
    each.full_name: each
    for module in (service_pb2, model_config_pb2, reflection_pb2)
    for each in module.DESCRIPTOR.message_types_by_name.values()
}


def described(message: Any) -> dict[str, Any]:
    """What of a message is on the wire, that of nested ones included."""
    fields = {
        each.name: (each.number, each.type, each.is_repeated, each.message_type and each.message_type.full_name)
        for each in message.fields
    }
    return fields | {each.name: described(each) for each in message.nested_types}


@pytest.mark.parametrize("message", OURS, ids=lambda message: message.full_name)
def test_a_message_has_the_fields_that_clients_know(message: Any) -> None:
    ours, theirs = described(message), described(THEIRS[message.full_name])
    assert ours == ({name: theirs.get(name) for name in ours} if message.full_name in TOLD_IN_PART else theirs)


@pytest.mark.parametrize("kind", ["DataType", "ModelQueuePolicy.TimeoutAction"])
def test_words_have_the_numbers_that_clients_know(kind: str) -> None:
    ours = schema.POOL.FindEnumTypeByName(f"inference.{kind}")
    theirs = model_config_pb2.DESCRIPTOR.pool.FindEnumTypeByName(f"inference.{kind}")
    assert {each.name: each.number for each in ours.values} == {each.name: each.number for each in theirs.values}


def test_a_method_that_takes_a_stream_is_known_as_such() -> None:
    ours = schema.POOL.FindServiceByName(INFERENCE)
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in ours.methods:
        other = theirs.methods_by_name[method.name]
        assert (method.client_streaming, method.server_streaming) == (other.client_streaming, other.server_streaming)
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name
