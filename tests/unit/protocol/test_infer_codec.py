"""The Open Inference Protocol codec: every datatype in both forms, and every way in which a request can be wrong."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from tests.telling import assert_tells, telling

from penstock.errors import Invalid
from penstock.protocol.datatypes import DTYPES
from penstock.protocol.limits import DEFAULT_PRIORITY
from penstock.protocol.refusals import Refusal, status_of
from penstock.routing.leases import RequestsJoined
from penstock.serving.joining import Joining
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_serving.replica.codec.documents import RequestDecoder
from penstock_serving.replica.codec.responses import ResponseEncoder, model_metadata


def signature(datatype: DataType, shape: tuple[int, ...] = (-1, 2)) -> Signature:
    return Signature(
        inputs=(TensorSpec(name="x", datatype=datatype, shape=shape),),
        outputs=(TensorSpec(name="y", datatype=datatype, shape=shape),),
    )


FP32 = signature(DataType.FP32, (-1, 64))
FIRST = Joining(inputs={"x": 0}, outputs={"y": 0})
TWO = Signature(
    inputs=(
        TensorSpec(name="a", datatype=DataType.FP32, shape=(-1, 2)),
        TensorSpec(name="b", datatype=DataType.INT64, shape=(-1,)),
    ),
    outputs=(
        TensorSpec(name="p", datatype=DataType.FP32, shape=(-1, 2)),
        TensorSpec(name="q", datatype=DataType.BYTES, shape=(-1,)),
    ),
)

JSON_VALUES: dict[DataType, list[Any]] = {
    DataType.BOOL: [True, False, False, True],
    DataType.UINT8: [0, 255, 1, 2],
    DataType.UINT16: [0, 65535, 1, 2],
    DataType.UINT32: [0, 2**32 - 1, 1, 2],
    DataType.UINT64: [0, 2**64 - 1, 1, 2],
    DataType.INT8: [-128, 127, 0, 1],
    DataType.INT16: [-(2**15), 2**15 - 1, 0, 1],
    DataType.INT32: [-(2**31), 2**31 - 1, 0, 1],
    DataType.INT64: [-(2**63), 2**63 - 1, 0, 1],
    DataType.FP16: [0.5, -65504.0, 0.0, 2.0],
    DataType.BF16: [0.5, -1.0, 0.0, 256.0],
    DataType.FP32: [0.1, -3.4e38, 0.0, 1],
    DataType.FP64: [0.1, -1.7e308, 0.0, 1],
    DataType.BYTES: ["", "grüße", "\u0000", '"'],
}


def body(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}
    return {"inputs": [tensor | changes]}


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("datatype", list(DataType))
def test_json_of_every_datatype_comes_back_as_it_was(datatype: DataType, *, nested: bool) -> None:
    values = JSON_VALUES[datatype]
    data = [values[:2], values[2:]] if nested else values
    tensor = {"name": "x", "shape": [2, 2], "datatype": datatype, "data": data}
    request = RequestDecoder(signature(datatype), FIRST).decode(orjson.dumps({"inputs": [tensor]}))
    assert request.rows == 2
    assert request.inputs["x"].shape == (2, 2)
    assert request.inputs["x"].dtype == DTYPES[datatype]
    text, json_length = ResponseEncoder("m", "1").encode(request, {"y": request.inputs["x"]})
    assert json_length is None
    (output,) = orjson.loads(text)["outputs"]
    assert output["shape"] == [2, 2]
    assert output["datatype"] == datatype
    assert output["data"] == pytest.approx(values) if datatype.startswith("FP") else output["data"] == values


def binary_of(datatype: DataType) -> bytes:
    if datatype is DataType.BYTES:
        parts = [b"", b"\xff\xfe", b"abc", b"\x00"]
        return b"".join(struct.pack("<I", len(part)) + part for part in parts)
    if datatype is DataType.BF16:
        return np.array([0x3F80, 0x7F80, 0xFFC0, 0], dtype="<u2").tobytes()
    if datatype is DataType.BOOL:
        return bytes([1, 0, 0, 1])
    return np.array(JSON_VALUES[datatype], dtype=DTYPES[datatype]).tobytes()


@pytest.mark.parametrize("datatype", list(DataType))
def test_binary_of_every_datatype_comes_back_byte_for_byte(datatype: DataType) -> None:
    blob = binary_of(datatype)
    header = orjson.dumps(
        {
            "id": "7",
            "parameters": {"binary_data_output": True},
            "inputs": [
                {"name": "x", "shape": [2, 2], "datatype": datatype, "parameters": {"binary_data_size": len(blob)}}
            ],
        }
    )
    request = RequestDecoder(signature(datatype)).decode(header + blob, len(header))
    answer, json_length = ResponseEncoder("m", "1").encode(request, {"y": request.inputs["x"]})
    assert json_length is not None
    document = orjson.loads(answer[:json_length])
    assert document["id"] == "7"
    assert document["outputs"] == [
        {"name": "y", "datatype": datatype, "shape": [2, 2], "parameters": {"binary_data_size": len(blob)}}
    ]
    assert answer[json_length:] == blob


def test_several_inputs_and_outputs_mix_json_and_binary() -> None:
    blob = struct.pack("<2q", 5, -6)
    header = orjson.dumps(
        {
            "inputs": [
                {"name": "b", "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": 16}},
                {"name": "a", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4]]},
            ],
            "outputs": [{"name": "q", "parameters": {"binary_data": True}}, {"name": "p"}],
        }
    )
    request = RequestDecoder(TWO).decode(header + blob, len(header))
    assert request.inputs["b"].tolist() == [5, -6]
    outputs = {
        "p": np.ones((2, 2), np.float32),
        "q": np.array([b"x", b"yz"], dtype=object),
    }
    answer, json_length = ResponseEncoder("m", "1").encode(request, outputs)
    assert json_length is not None
    names = [output["name"] for output in orjson.loads(answer[:json_length])["outputs"]]
    assert names == ["q", "p"]
    assert answer[json_length:] == b"\x01\x00\x00\x00x\x02\x00\x00\x00yz"


def test_timeout_and_priority_are_read_in_tritons_units() -> None:
    decoder = RequestDecoder(FP32)
    request = decoder.decode(orjson.dumps(body() | {"parameters": {"timeout": 250_000, "priority": 2}}))
    assert (request.timeout_seconds, request.priority) == (0.25, 2)
    request = decoder.decode(orjson.dumps(body() | {"parameters": {"timeout": 0, "priority": 0}}))
    assert (request.timeout_seconds, request.priority) == (None, DEFAULT_PRIORITY)


def test_requests_of_other_inner_shapes_get_other_buckets() -> None:
    decoder = RequestDecoder(signature(DataType.FP32, (-1, -1)), FIRST)
    buckets = [
        decoder.decode(orjson.dumps(body(shape=shape, data=[0.0] * 4))).bucket for shape in ([1, 4], [2, 2], [4, 1])
    ]
    assert len(set(buckets)) == 3


PLACES: dict[str, tuple[Joining | None, list[int], int, bool]] = {
    "rows are counted on the first axis": (FIRST, [2, 3], 2, True),
    "rows are counted on the second axis": (Joining(inputs={"x": 1}, outputs={"y": 1}), [2, 3], 3, True),
    "where no axis is known to count rows, a request is one": (None, [2, 3], 1, True),
    "a request of no rows runs alone": (FIRST, [0, 3], 0, False),
}


@pytest.mark.parametrize(("joining", "shape", "rows", "shared"), PLACES.values(), ids=PLACES)
def test_rows_are_counted_on_the_axis_that_was_proved(
    joining: Joining | None, shape: list[int], rows: int, *, shared: bool
) -> None:
    decoder = RequestDecoder(signature(DataType.FP32, (-1, -1)), joining)
    document = orjson.dumps(body(shape=shape, data=[0.0] * int(np.prod(shape))))
    first, second = decoder.decode(document), decoder.decode(document)
    assert first.rows == rows
    assert (first.bucket == second.bucket) is shared


BAD: dict[str, tuple[dict[str, Any] | bytes, str]] = {
    "not JSON": (b'{"inputs": [', "valid JSON"),
    "empty body": (b"", "valid JSON"),
    "NaN": (
        b'{"inputs":[{"name":"x","shape":[1,64],"datatype":"FP32","data":[NaN]}]}',
        "JSON NaN",
    ),
    "a list instead of an object": (b"[]", "JSON object"),
    "no inputs": ({}, "'inputs' list"),
    "inputs empty": ({"inputs": []}, "'x' missing"),
    "an input that is no object": ({"inputs": [3]}, "inputs[0] object"),
    "an input without a name": ({"inputs": [{}]}, "inputs[0] 'name' string"),
    "an unknown input": (body(name="z"), "inputs[0] 'z' 'x'"),
    "an input twice": ({"inputs": body()["inputs"] * 2}, "inputs[1] 'x' twice"),
    "another datatype": (body(datatype="INT8"), "inputs[0] 'x' datatype 'INT8' 'FP32'"),
    "no datatype": (body(datatype=None), "inputs[0] 'x' datatype missing 'FP32'"),
    "no shape": (body(shape=None), "inputs[0] 'x' 'shape' missing"),
    "no name": (body(name=None), "inputs[0] 'name' string"),
    "a wrong width": (body(shape=[1, 63]), "inputs[0] 'x' shape [1, 63] [-1, 64]"),
    "a wrong rank": (body(shape=[64]), "inputs[0] 'x' shape [64] [-1, 64]"),
    "a negative axis": (body(shape=[-1, 64]), "inputs[0] 'x' 'shape' whole 0"),
    "a boolean axis": (body(shape=[True, 64]), "inputs[0] 'x' 'shape' whole 0"),
    "a shape that is no list": (body(shape="1"), "inputs[0] 'x' 'shape' list"),
    "a huge shape": (body(shape=[10**12, 64]), "inputs[0] 'x' 64000000000000 'data' 64"),
    "too few elements": (body(data=[0.0] * 63), "inputs[0] 'x' 64 'data' 63"),
    "ragged data": (body(shape=[2, 64], data=[[0.0] * 64, [0.0] * 63]), "ragged"),
    "nesting past what arrays have": (
        body()
        | {
            "inputs": [
                {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": json.loads("[" * 70 + "1" + "]" * 70)}
            ]
        },
        "inputs[0] 'x' nested deeply",
    ),
    "another nesting": (body(data=[[[0.0] * 64]]), "inputs[0] 'x' nested [1, 1, 64]"),
    "null among numbers": (body(data=[None] * 64), "null"),
    "strings among numbers": (body(data=["1"] * 64), "strings"),
    "booleans for numbers": (body(data=[True] * 64), "booleans"),
    "one boolean among numbers": (body(data=[0.5] * 63 + [True]), "booleans"),
    "one boolean among nested numbers": (body(data=[[1] * 63 + [False]]), "booleans"),
    "the word NaN": (body(data=["NaN"] * 64), "inputs[0] 'x' NaN binary"),
    "infinity": (b'{"inputs":[{"name":"x","shape":[1,64],"datatype":"FP32","data":[-Infinity]}]}', "JSON NaN"),
    "data that is no list": (body(data=3.0), "inputs[0] 'x' 'data' list"),
    "no data": ({"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32"}]}, "'data' 'binary_data_size'"),
    "data that is null": (body(data=None), "inputs[0] 'x' 'data' 'binary_data_size'"),
    "a number past FP32": (body(data=[1e39] * 64), "inputs[0] 'x' FP32's range"),
    "a number past FP64": (b'{"inputs":[{"name":"x","shape":[1,64],"datatype":"FP32","data":[1e999]}]}', "Infinity"),
    "one long string that would give all elements its length": (
        body(data=[0] * 10**6 + ["a" * 10**6]),
        "inputs[0] 'x' strings",
    ),
    "the same in nested lists": (body(data=[[0] * 10**6 + ["a" * 10**6]]), "inputs[0] 'x' strings"),
    "outputs that are false": (body() | {"outputs": False}, "'outputs' list"),
    "an output's parameters that are a list": (
        body() | {"outputs": [{"name": "y", "parameters": []}]},
        "outputs[0] 'y' 'parameters' object",
    ),
    "shared memory": (body(parameters={"shared_memory_region": "r"}), "inputs[0] 'x' shared memory supported"),
    "parameters that are no object": (body() | {"parameters": 3}, "'parameters' object"),
    "a negative timeout": (body() | {"parameters": {"timeout": -1}}, "'timeout' whole microseconds"),
    "a priority past the last": (body() | {"parameters": {"priority": 17}}, "'priority' 0 16"),
    "an id that is no string": (body() | {"id": 3}, "'id' string"),
    "an unknown output": (body() | {"outputs": [{"name": "z"}]}, "outputs[0] 'z' 'y'"),
    "an output twice": (body() | {"outputs": [{"name": "y"}, {"name": "y"}]}, "outputs[1] 'y' twice"),
    "outputs that are no list": (body() | {"outputs": {"name": "y"}}, "'outputs' list"),
    "classes that are no number": (
        body() | {"outputs": [{"name": "y", "parameters": {"classification": "3"}}]},
        "outputs[0] 'y' 'classification' 10000 '3'",
    ),
    "classes that are a boolean": (
        body() | {"outputs": [{"name": "y", "parameters": {"classification": True}}]},
        "outputs[0] 'y' 'classification' True",
    ),
    "fewer classes than none": (
        body() | {"outputs": [{"name": "y", "parameters": {"classification": -1}}]},
        "outputs[0] 'y' 'classification' -1",
    ),
    "more classes than may be": (
        body() | {"outputs": [{"name": "y", "parameters": {"classification": 10_001}}]},
        "outputs[0] 'y' 'classification' 10001",
    ),
    "a binary flag that is no boolean": (
        body() | {"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
        "outputs[0] 'y' 'binary_data' true false",
    ),
    "a binary size with no binary data": (
        {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": 256}}]},
        "inputs[0] 'x' binary_data_size 256 0",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_request_is_refused_saying_what_and_where(name: str) -> None:
    document, facts = BAD[name]
    raw = document if isinstance(document, bytes) else orjson.dumps(document)
    with pytest.raises(Invalid) as caught:
        RequestDecoder(FP32).decode(raw)
    assert_tells(caught.value.message, facts)
    assert status_of(caught.value) == 400


@pytest.mark.parametrize(
    ("datatype", "data", "facts"),
    [
        (DataType.INT8, [128, 0], "128 INT8's range -128 127"),
        (DataType.UINT8, [-1, 0], "-1 UINT8's range"),
        (DataType.UINT64, [2**64, 0], "64 bits"),
        (DataType.INT64, [-(2**63) - 1, 0], "64 bits"),
        (DataType.INT64, [2**63, 0], "64 bits"),
        (DataType.UINT64, [-1, 2**63], "UINT64's range"),
        (DataType.INT64, [1, True], "booleans"),
        (DataType.BOOL, [True, 1], "BOOL true false"),
        (DataType.BOOL, [True, "x"], "BOOL true false"),
        (DataType.FP16, [65520, 0.5], "FP16's range"),
        (DataType.INT32, [1.5, 0], "decimal point"),
        (DataType.BOOL, [1, 0], "BOOL true false"),
        (DataType.BYTES, [1, 0], "BYTES strings 0 int"),
        (DataType.BYTES, [["a"], ["b", "c"]], "lists level long"),
        (DataType.FP16, [70000, 0], "FP16's range"),
        (DataType.BF16, [3.4e38, 0], ""),
    ],
)
def test_an_element_that_the_datatype_cannot_hold_is_refused(datatype: DataType, data: list[Any], facts: str) -> None:
    tensor = {"name": "x", "shape": [1, 2], "datatype": datatype, "data": data}
    # orjson writes no more than 64 bits; a client can.
    raw = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(Invalid) as caught:
        RequestDecoder(signature(datatype)).decode(raw)
    assert_tells(caught.value.message, facts)


@pytest.mark.parametrize(
    ("datatype", "blob", "facts"),
    [
        (DataType.FP32, b"\0" * 15, "4 FP32 16 bytes 15"),
        (DataType.BYTES, b"\0" * 15, "4 elements"),
        (DataType.BYTES, struct.pack("<I", 100) + b"\0" * 12, "element 0 longer"),
        (DataType.BYTES, struct.pack("<I", 12) + b"\0" * 12, "ends element 1"),
        (DataType.BYTES, b"\0" * 17, "1 bytes left"),
    ],
)
def test_binary_data_that_does_not_fit_is_refused(datatype: DataType, blob: bytes, facts: str) -> None:
    parameters = {"binary_data_size": len(blob)}
    header = orjson.dumps({"inputs": [{"name": "x", "shape": [2, 2], "datatype": datatype, "parameters": parameters}]})
    with pytest.raises(Invalid) as caught:
        RequestDecoder(signature(datatype)).decode(header + blob, len(header))
    assert_tells(caught.value.message, facts)


GRAPH = Signature(
    inputs=(
        TensorSpec(name="nodes", datatype=DataType.FP32, shape=(-1, 2)),
        TensorSpec(name="edges", datatype=DataType.INT64, shape=(2, -1)),
    ),
    outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, 2)),),
)
NODES = {"name": "nodes", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}


@pytest.mark.parametrize(
    "edges",
    [
        {"shape": [2, 0], "data": []},
        {"shape": [2, 0], "data": [[], []]},
        {"shape": [2, 0], "parameters": {"binary_data_size": 0}},
        {"shape": [2, 0], "parameters": {"binary_data_size": 0}, "data": []},
    ],
    ids=["a flat list", "nested lists", "binary data of no bytes", "both, as who writes all fields does"],
)
def test_a_tensor_without_elements_is_taken_where_the_model_leaves_the_axis_open(edges: dict[str, Any]) -> None:
    header = orjson.dumps({"inputs": [NODES, {"name": "edges", "datatype": "INT64"} | edges]})
    request = RequestDecoder(GRAPH).decode(header, len(header))
    assert (request.inputs["edges"].shape, request.inputs["edges"].dtype) == ((2, 0), np.int64)


@pytest.mark.parametrize(
    ("edges", "facts"),
    [
        ({"shape": [0, 2], "data": []}, "'edges' shape [0, 2] [2, -1]"),
        ({"shape": [2, 0], "data": [1]}, "'edges' 0 'data' 1"),
        ({"shape": [2, 0], "data": [[]]}, "'edges' nested [1, 0]"),
        ({"shape": [2, 0]}, "'data' 'binary_data_size'"),
        ({"shape": [2, 0], "data": ["x"]}, "strings"),
    ],
)
def test_a_tensor_without_elements_must_still_fit(edges: dict[str, Any], facts: str) -> None:
    body = orjson.dumps({"inputs": [NODES, {"name": "edges", "datatype": "INT64"} | edges]})
    with pytest.raises(Invalid) as caught:
        RequestDecoder(GRAPH).decode(body)
    assert_tells(caught.value.message, facts)


def test_no_tensor_without_elements_has_an_axis_that_makes_an_engine_fill_gigabytes() -> None:
    for shape in ([2**40, 0], [2**62, 0], [0, 4097, 4097]):
        tensor = {"name": "x", "datatype": "FP32", "shape": shape, "data": []}
        with pytest.raises(Invalid, match=telling("'x' axes long")):
            RequestDecoder(ANY_RANK).decode(json.dumps({"inputs": [tensor]}).encode())


@pytest.mark.parametrize("datatype", list(DataType))
def test_outputs_without_elements_are_written_in_both_forms(datatype: DataType) -> None:
    spec = TensorSpec(name="y", datatype=datatype, shape=(-1, -1))
    decoder = RequestDecoder(Signature(inputs=GRAPH.inputs[:1], outputs=(spec,)))
    for binary in (False, True):
        asked = {"inputs": [NODES], "outputs": [{"name": "y", "parameters": {"binary_data": binary}}]}
        request = decoder.decode(orjson.dumps(asked))
        text, json_length = ResponseEncoder("m", "1").encode(request, {"y": np.empty((2, 0), DTYPES[datatype])})
        (output,) = orjson.loads(text[:json_length])["outputs"]
        assert output["shape"] == [2, 0]
        assert output["parameters"] == {"binary_data_size": 0} if binary else output["data"] == []


ANY_RANK = Signature(
    inputs=(TensorSpec(name="x", datatype=DataType.FP32, shape=(), any_rank=True),),
    outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(), any_rank=True),),
)


@pytest.mark.parametrize("shape", [[], [4], [2, 2], [1, 2, 1, 2]])
def test_any_shape_is_let_through_where_the_model_states_none(shape: list[int]) -> None:
    data = [1.0] * int(np.prod(shape))
    tensor = {"name": "x", "datatype": "FP32", "shape": shape, "data": data}
    request = RequestDecoder(ANY_RANK).decode(orjson.dumps({"inputs": [tensor]}))
    assert request.inputs["x"].shape == tuple(shape)


NULLS: dict[str, dict[str, Any]] = {
    "all that is optional at the top": {"id": None, "parameters": None, "outputs": None},
    "every parameter": {
        "parameters": {"timeout": None, "priority": None, "binary_data_output": None, "sequence_id": None},
    },
    "an output's parameters": {"outputs": [{"name": "y", "parameters": None, "shape": None, "datatype": None}]},
    "every parameter of an output": {
        "outputs": [
            {"name": "y", "parameters": {"binary_data": None, "classification": None, "shared_memory_region": None}}
        ],
    },
    "an input's parameters": {"inputs": [{**NODES, "parameters": None}]},
    "every parameter of an input": {
        "inputs": [{**NODES, "parameters": {"binary_data_size": None, "shared_memory_region": None}}],
    },
    "the values that stand for unset in a client without null": {
        "parameters": {"timeout": 0, "priority": 0, "binary_data_output": False},
        "outputs": [],
        "inputs": [{**NODES, "parameters": {"binary_data_size": 0, "shared_memory_region": ""}}],
    },
}


@pytest.mark.parametrize("name", NULLS)
def test_what_is_null_is_absent(name: str) -> None:
    decoder = RequestDecoder(Signature(inputs=GRAPH.inputs[:1], outputs=GRAPH.outputs))
    plain, given = (decoder.decode(orjson.dumps({"inputs": [NODES]} | more)) for more in ({}, NULLS[name]))
    assert given.inputs["nodes"].tolist() == [[1, 2]]
    assert (given.id, given.outputs, given.priority) == (plain.id, plain.outputs, plain.priority)
    assert given.timeout_seconds is None


def test_data_that_is_null_beside_binary_data_is_absent() -> None:
    for nothing in (None, []):
        tensor = {"name": "nodes", "datatype": "FP32", "shape": [1, 2], "data": nothing}
        header = orjson.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": 8}}]})
        decoder = RequestDecoder(Signature(inputs=GRAPH.inputs[:1], outputs=GRAPH.outputs))
        request = decoder.decode(header + struct.pack("<2f", 1, 2), len(header))
        assert request.inputs["nodes"].tolist() == [[1, 2]]


SCALED = Signature(
    inputs=(TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 2)),),
    outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, 2)),),
    optional=(TensorSpec(name="scale", datatype=DataType.FP32, shape=(2,)),),
)
ROW = {"name": "x", "datatype": "FP32", "shape": [3, 2], "data": [0] * 6}
SCALE = {"name": "scale", "datatype": "FP32", "shape": [2], "data": [3, 4]}


def test_an_input_that_has_a_value_of_its_own_may_be_left_out() -> None:
    decoder = RequestDecoder(SCALED, FIRST)
    plain = decoder.decode(orjson.dumps({"inputs": [ROW]}))
    assert (set(plain.inputs), plain.rows, plain.bucket) == ({"x"}, 3, ())
    given = [decoder.decode(orjson.dumps({"inputs": [SCALE, ROW]})) for _ in range(2)]
    assert [(set(each.inputs), each.rows) for each in given] == [({"x", "scale"}, 3)] * 2
    assert len({plain.bucket, *(each.bucket for each in given)}) == 3, "who brings its own runs alone"
    with pytest.raises(Invalid, match="inputs: 'x' missing"):
        decoder.decode(orjson.dumps({"inputs": [SCALE]}))


def test_metadata_says_what_may_be_left_out_what_has_any_shape_and_which_classes_there_are() -> None:
    classes = TensorSpec(name="p", datatype=DataType.FP32, shape=(-1, 2), classes=("cat", "dog"))
    signature = SCALED.model_copy(update={"outputs": (*ANY_RANK.outputs, classes)})
    found = orjson.loads(model_metadata("m", "1", "p", signature, RequestsJoined(joined=True, reason="")))
    assert found["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "scale", "datatype": "FP32", "shape": [2], "parameters": {"optional": True}},
    ]
    assert found["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": None, "parameters": {"any_rank": True}},
        {"name": "p", "datatype": "FP32", "shape": [-1, 2], "parameters": {"classes": ["cat", "dog"]}},
    ]


@pytest.mark.parametrize("binary", [False, True], ids=["as JSON", "in binary form"])
def test_a_text_that_is_not_unicode_is_an_error_and_no_lost_answer(*, binary: bool) -> None:
    decoder = RequestDecoder(signature(DataType.BYTES, (-1, 1)))
    tensor = {"name": "x", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}
    asked = {"inputs": [tensor], "parameters": {"binary_data_output": binary}}
    with pytest.raises(Invalid, match=telling("output 'y' Unicode")) as caught:
        ResponseEncoder("m", "1").encode(
            decoder.decode(orjson.dumps(asked)), {"y": np.array([["\ud800"]], dtype=object)}
        )
    assert status_of(caught.value) == 406


def test_binary_data_of_no_input_is_refused() -> None:
    header = orjson.dumps(body())
    with pytest.raises(Invalid, match=telling("3 bytes binary input")):
        RequestDecoder(FP32).decode(header + b"abc", len(header))


def test_a_json_length_past_the_body_is_refused() -> None:
    with pytest.raises(Invalid, match=telling("Inference-Header-Content-Length 99")):
        RequestDecoder(FP32).decode(b"{}", 99)


def test_inputs_with_different_batch_axes_are_refused() -> None:
    inputs = [
        {"name": "a", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]},
        {"name": "b", "shape": [3], "datatype": "INT64", "data": [1, 2, 3]},
    ]
    both = {"a": 0, "b": 0}
    with pytest.raises(Invalid, match=telling("'b' axis 3 2")):
        RequestDecoder(TWO, Joining(inputs=both)).decode(orjson.dumps({"inputs": inputs}))
    assert RequestDecoder(TWO).decode(orjson.dumps({"inputs": inputs})).rows == 1, "nothing is known of the axes"
    ragged = RequestDecoder(TWO, Joining(inputs=both, ragged=True))
    alone = [ragged.decode(orjson.dumps({"inputs": inputs})).bucket for _ in range(2)]
    assert alone[0] != alone[1], "the model takes such inputs, but each request by itself"
    with pytest.raises(Invalid, match=telling("inputs 'b' missing")):
        RequestDecoder(TWO).decode(orjson.dumps({"inputs": inputs[:1]}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_result_that_json_cannot_hold_is_an_error_that_points_to_the_binary_form(value: float) -> None:
    decoder = RequestDecoder(FP32)
    encoder = ResponseEncoder("m", "1")
    arrays = {"y": np.array([[1.0, value]], np.float32)}
    with pytest.raises(Invalid, match=telling("'y' binary")) as caught:
        encoder.encode(decoder.decode(orjson.dumps(body())), arrays)
    assert caught.value.reason == Refusal.NOT_REPRESENTABLE
    assert status_of(caught.value) == 406
    asked = body() | {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    answer, json_length = encoder.encode(decoder.decode(orjson.dumps(asked)), arrays)
    assert np.frombuffer(answer[json_length:], "<f4").tobytes() == arrays["y"].tobytes()


def test_bytes_that_are_not_utf8_can_only_be_had_in_binary_form() -> None:
    decoder = RequestDecoder(signature(DataType.BYTES, (-1, 1)))
    tensor = {"name": "x", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}
    request = decoder.decode(orjson.dumps({"inputs": [tensor]}))
    with pytest.raises(Invalid, match="not UTF-8"):
        ResponseEncoder("m", "1").encode(request, {"y": np.array([[b"\xff"]], dtype=object)})


def test_the_word_null_in_a_string_is_no_error() -> None:
    request = RequestDecoder(TWO).decode(
        orjson.dumps(
            {
                "inputs": [
                    {"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
                    {"name": "b", "shape": [1], "datatype": "INT64", "data": [1]},
                ]
            }
        )
    )
    outputs = {"p": np.ones((1, 2), np.float32), "q": np.array([b"null"], dtype=object)}
    text, _ = ResponseEncoder("m", "1").encode(request, outputs)
    assert orjson.loads(text)["outputs"][1]["data"] == ["null"]


def test_model_metadata_names_every_tensor() -> None:
    assert orjson.loads(model_metadata("m", "3", "onnx_onnxv1", TWO, RequestsJoined(joined=False, reason="why"))) == {
        "name": "m",
        "versions": ["3"],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "b", "datatype": "INT64", "shape": [-1]},
        ],
        "outputs": [
            {"name": "p", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "q", "datatype": "BYTES", "shape": [-1]},
        ],
        "parameters": {"requests_joined": False, "requests_joined_reason": "why"},
    }
