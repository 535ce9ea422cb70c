"""Infer requests and answers as gRPC has them: every datatype in each form that it has, and every way to be wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as stubs

from penstock.errors import Invalid
from penstock.protocol.datatypes import DTYPES, array_to_bytes
from penstock.protocol.refusals import Refusal
from penstock.serving.joining import Joining
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_serving.replica.codec.requests import InferRequest, RequestedOutput
from penstock_serving.replica.grpc.answers import MessageEncoder, varint
from penstock_serving.replica.grpc.messages import CONTENTS, MessageDecoder

VALUES: dict[DataType, list[Any]] = {
    DataType.BOOL: [True, False],
    DataType.UINT8: [0, 255],
    DataType.UINT16: [0, 65535],
    DataType.UINT32: [0, 2**32 - 1],
    DataType.UINT64: [0, 2**64 - 1],
    DataType.INT8: [-128, 127],
    DataType.INT16: [-(2**15), 2**15 - 1],
    DataType.INT32: [-(2**31), 2**31 - 1],
    DataType.INT64: [-(2**63), 2**63 - 1],
    DataType.FP16: [0.5, -65504.0],
    DataType.BF16: [0x3F00, 0xFF80],
    DataType.FP32: [0.5, float("inf")],
    DataType.FP64: [0.1, -1.7e308],
    DataType.BYTES: [b"", b"\0\xff"],
}


def array(datatype: DataType) -> np.ndarray[Any, Any]:
    return np.array([VALUES[datatype]], DTYPES[datatype])


def signature(datatype: DataType) -> Signature:
    return Signature(
        inputs=(TensorSpec(name="x", datatype=datatype, shape=(-1, 2)),),
        outputs=(TensorSpec(name="y", datatype=datatype, shape=(-1, 2)),),
    )


def decoder(datatype: DataType = DataType.FP32) -> MessageDecoder:
    return MessageDecoder("ns", "m", "1", signature(datatype), Joining(inputs={"x": 0}, outputs={"y": 0}))


def decode(message: Any, by: MessageDecoder | None = None) -> InferRequest:
    wire = message.SerializeToString()
    return (by or decoder()).decode(b"12345" + wire + b"6", 5, 5 + len(wire))


def asking(**more: Any) -> Any:
    """A request that is right for FP32, but for what is given."""
    fields = {
        "model_name": "m",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2]}],
        "raw_input_contents": [b"\0" * 8],
    }
    return stubs.ModelInferRequest(**fields | more)


def test_a_model_without_inputs_is_asked_with_none() -> None:
    nothing = Signature(inputs=(), outputs=signature(DataType.FP32).outputs)
    request = decode(
        asking(inputs=[], raw_input_contents=[]),
        MessageDecoder("ns", "m", "1", nothing, Joining(inputs={}, outputs={})),
    )
    assert (request.inputs, request.rows) == ({}, 1)


@pytest.mark.parametrize("datatype", DataType)
def test_raw_contents_of_each_datatype_are_read_and_written(datatype: DataType) -> None:
    values = array(datatype)
    tensor = {"name": "x", "datatype": datatype.value, "shape": [1, 2]}
    request = decode(asking(inputs=[tensor], raw_input_contents=[array_to_bytes(values, datatype)]), decoder(datatype))
    assert request.inputs["x"].dtype == DTYPES[datatype]
    assert request.inputs["x"].tolist() == values.tolist()
    answer = stubs.ModelInferResponse.FromString(b"".join(MessageEncoder("m", "1").encode(request, {"y": values})))
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "")
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", datatype.value, [1, 2])
    assert list(answer.raw_output_contents) == [array_to_bytes(values, datatype)]


@pytest.mark.parametrize("datatype", CONTENTS)
def test_typed_contents_of_each_datatype_are_read_and_answered_in_kind(datatype: DataType) -> None:
    values = array(datatype)
    contents = {CONTENTS[datatype]: VALUES[datatype]}
    tensor = {"name": "x", "datatype": datatype.value, "shape": [1, 2], "contents": contents}
    request = decode(asking(inputs=[tensor], raw_input_contents=[]), decoder(datatype))
    assert request.inputs["x"].dtype == DTYPES[datatype]
    assert request.inputs["x"].tolist() == values.tolist()
    answer = stubs.ModelInferResponse.FromString(b"".join(MessageEncoder("m", "1").encode(request, {"y": values})))
    assert not answer.raw_output_contents
    assert list(getattr(answer.outputs[0].contents, CONTENTS[datatype])) == VALUES[datatype]


def test_an_output_that_has_no_typed_contents_makes_the_answer_raw() -> None:
    outputs = (RequestedOutput("y", DataType.FP32, binary=False), RequestedOutput("h", DataType.FP16, binary=False))
    request = InferRequest({}, 1, (), outputs)
    arrays = {"y": np.ones(1, np.float32), "h": np.ones(1, np.float16)}
    answer = stubs.ModelInferResponse.FromString(b"".join(MessageEncoder("m", "1").encode(request, arrays)))
    assert list(answer.raw_output_contents) == [arrays["y"].tobytes(), arrays["h"].tobytes()]


def test_classes_of_an_output_are_not_described_as_the_tensor_of_their_shape() -> None:
    by, encoder = decoder(), MessageEncoder("m", "1")
    values = np.array([[1, 2]], np.float32)
    classes = {"outputs": [{"name": "y", "parameters": {"classification": {"int64_param": 2}}}]}
    for more, datatype, content in (
        ({}, "FP32", values.tobytes()),
        (classes, "BYTES", b"\5\0\0\0002.0:1\5\0\0\0001.0:0"),
        ({}, "FP32", values.tobytes()),
    ):
        request = decode(asking(**more), by)
        answer = stubs.ModelInferResponse.FromString(b"".join(encoder.encode(request, request.present({"y": values}))))
        assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == (datatype, [1, 2])
        assert list(answer.raw_output_contents) == [content]


def test_raw_contents_are_not_copied() -> None:
    body = bytearray(asking().SerializeToString())
    request = decoder().decode(body, 0, len(body))
    assert np.shares_memory(request.inputs["x"], np.frombuffer(body, np.uint8))


def test_what_a_request_asks_beside_its_tensors_is_read() -> None:
    asked = {
        "id": "seven",
        "parameters": {
            "timeout": {"int64_param": 1500},
            "priority": {"uint64_param": 3},
            "other": {"string_param": "x"},
        },
        "outputs": [{"name": "y"}],
    }
    by = decoder()
    for _ in range(2):  # the second is read from what the first left
        request = decode(asking(**asked), by)
        assert (request.id, request.timeout_seconds, request.priority) == ("seven", 0.0015, 3)
        assert request.outputs == (RequestedOutput("y", DataType.FP32, binary=True),)
    assert decode(asking(**asked | {"id": ""}), by).id is None


@pytest.mark.parametrize(
    ("more", "reason", "message"),
    [
        ({"model_name": "n"}, Refusal.NOT_FOUND, "model 'n'"),
        ({"model_name": ""}, Refusal.NOT_FOUND, "model ''"),
        ({"model_name": "other/m"}, Refusal.NOT_FOUND, "namespace 'ns'"),
        ({"model_version": "2"}, Refusal.NOT_FOUND, "version '2'"),
        ({"inputs": [], "raw_input_contents": []}, Refusal.BAD_REQUEST, "inputs: 'x' missing"),
        ({"inputs": [{"name": "z"}]}, Refusal.BAD_REQUEST, "inputs[0] 'z'"),
        ({"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 2]}]}, Refusal.BAD_REQUEST, "'FP64'"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3]}]}, Refusal.BAD_REQUEST, "[1, 3]"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]}, Refusal.BAD_REQUEST, "-1"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2]}] * 2}, Refusal.BAD_REQUEST, "twice"),
        ({"raw_input_contents": [b"\0" * 7]}, Refusal.BAD_REQUEST, "8 bytes, but there are 7"),
        ({"raw_input_contents": [b"\0" * 8] * 2}, Refusal.BAD_REQUEST, "2 entries, but there are 1"),
        ({"raw_input_contents": []}, Refusal.BAD_REQUEST, "'fp32_contents' has 0"),
        ({"outputs": [{"name": "z"}]}, Refusal.BAD_REQUEST, "outputs[0] 'z'"),
        ({"parameters": {"timeout": {"string_param": "1"}}}, Refusal.BAD_REQUEST, "'timeout'"),
        ({"parameters": {"priority": {"int64_param": 17}}}, Refusal.BAD_REQUEST, "'priority'"),
        (
            {"outputs": [{"name": "y", "parameters": {"classification": {"int64_param": -2}}}]},
            Refusal.BAD_REQUEST,
            "classification",
        ),
        (
            {
                "inputs": [
                    {
                        "name": "x", "datatype": "FP32", "shape": [1, 2],
                        "parameters": {"shared_memory_region": {"string_param": "a"}},
                    }
                ]
            },
            Refusal.BAD_REQUEST,
            "shared memory",
        ),
        (
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "contents": {"fp32_contents": [1, 2]}}]},
            Refusal.BAD_REQUEST,
            "one form",
        ),
    ],
    ids=[
        "another model", "no model", "another namespace", "another version", "no inputs", "an input that the model lacks",
        "another datatype", "another shape", "a negative length", "an input twice", "too few bytes", "more contents than inputs",
        "neither form", "an output that the model lacks", "a timeout in words", "a priority out of range", "classification",
        "shared memory", "both forms",
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_saying_what_and_where(more: dict[str, Any], reason: Refusal, message: str) -> None:
    by = decoder()
    decode(asking(), by)
    with pytest.raises(Invalid) as caught:
        decode(asking(**more), by)
    assert caught.value.reason == reason
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("datatype", "contents", "message"),
    [
        (DataType.FP16, {"fp32_contents": [1, 2]}, "raw_input_contents"),
        (DataType.INT8, {"int_contents": [1, 128]}, "128 is out of INT8's range"),
        (DataType.UINT8, {"uint_contents": [256, 0]}, "256 is out of UINT8's range"),
        (DataType.FP32, {"fp64_contents": [1, 2]}, "'fp64_contents'"),
        (DataType.FP32, {"fp32_contents": [1]}, "has 1"),
    ],
    ids=["a datatype without a field", "too large", "too large without a sign", "another field", "too few"],
)
def test_wrong_typed_contents_are_refused(datatype: DataType, contents: dict[str, Any], message: str) -> None:
    tensor = {"name": "x", "datatype": datatype.value, "shape": [1, 2], "contents": contents}
    with pytest.raises(Invalid) as caught:
        decode(asking(inputs=[tensor], raw_input_contents=[]), decoder(datatype))
    assert message in caught.value.message


@pytest.mark.parametrize(
    "wire",
    [
        b"\xff",
        b"\x0a\x05m",
        b"\x0a\x01\xff",
        b"\x1a\x01\xff" + asking().SerializeToString(),
        b"\x3a\xff\xff\xff\xff\xff\x01",
    ],
    ids=["half a tag", "a name cut short", "a name that is no text", "an id that is no text", "an endless length"],
)
def test_what_is_no_message_is_refused(wire: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        decoder().decode(wire, 0, len(wire))
    assert caught.value.reason == Refusal.BAD_REQUEST


def test_a_field_of_a_later_release_does_no_harm() -> None:
    wire = b"\xa0\x06\x07" + asking(id="i").SerializeToString() + b"\xa2\x06\x01x"
    request = decoder().decode(wire, 0, len(wire))
    assert request.id == "i"
    assert request.inputs["x"].tolist() == [[0, 0]]


def test_what_requests_have_in_common_is_kept_within_bounds() -> None:
    by = decoder()
    for number in range(600):
        decode(asking(parameters={"n": {"int64_param": number}}), by)
    decode(asking(parameters={"n": {"string_param": "x" * 5000}}), by)
    assert len(by._known) <= 256
    assert max(map(len, by._known)) <= 4096


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 16383, 16384, 2**31])
def test_a_length_is_written_as_protobuf_does(number: int) -> None:
    assert varint(number) == stubs.InferParameter(uint64_param=number).SerializeToString()[1:]
