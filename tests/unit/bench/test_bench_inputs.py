"""Requests that `penstock bench` makes up: what a replica's own codec takes, in both forms."""

from __future__ import annotations

import json

import pytest
from tests.telling import assert_tells

from penstock.errors import Invalid
from penstock.protocol.datatypes import DTYPES
from penstock.routing.leases import RequestsJoined
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_cli.bench.inputs import InputOptions, RequestBody, http_request, infer_url, make_requests, shape_of
from penstock_serving.replica.codec.documents import RequestDecoder
from penstock_serving.replica.codec.responses import model_metadata


def _signature(datatype: DataType) -> Signature:
    return Signature(
        inputs=(
            TensorSpec(name="x", datatype=datatype, shape=(-1, -1, 3)),
            TensorSpec(name="scale", datatype=DataType.FP32, shape=(1,)),
        ),
        outputs=(TensorSpec(name="y", datatype=datatype, shape=(-1, 2)),),
        optional=(TensorSpec(name="bias", datatype=DataType.FP32, shape=(2,)),),
    )


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("datatype", list(DataType), ids=lambda each: str(each.value))
def test_every_datatype_is_taken_by_a_replica(datatype: DataType, *, binary: bool) -> None:
    signature = _signature(datatype)
    metadata = json.loads(
        model_metadata("m", "1", "onnxruntime_onnx", signature, RequestsJoined(joined=False, reason="x"))
    )
    bodies = make_requests(metadata, InputOptions(rows=5, shapes={"x": (7, 3)}, distinct=3, binary=binary))
    decoder = RequestDecoder(signature)
    for body in bodies:
        length = body.headers.get("Inference-Header-Content-Length")
        request = decoder.decode(body.content, int(length) if length else None)
        assert request.inputs["x"].shape == (5, 7, 3)
        assert request.inputs["x"].dtype == DTYPES[datatype]
        assert "bias" not in request.inputs
    if datatype is not DataType.BOOL:
        assert len({body.content for body in bodies}) == 3


def test_an_axis_that_nobody_names_has_a_length() -> None:
    assert shape_of("x", [-1, -1, 3], InputOptions(rows=2)) == (2, 16, 3)
    assert shape_of("x", [1, 64], InputOptions(rows=2)) == (1, 64)
    assert shape_of("x", [], InputOptions(rows=2)) == ()


@pytest.mark.parametrize(
    ("metadata", "reason", "named"),
    [
        pytest.param({}, "NoMetadata", "--body", id="no inputs"),
        pytest.param(
            {"inputs": [{"name": "x", "datatype": "FP8", "shape": [1]}]},
            "UnknownDatatype",
            "FP8",
            id="a strange datatype",
        ),
        pytest.param(
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": None}]}, "UnknownShape", "--shape x=", id="any rank"
        ),
    ],
)
def test_what_cannot_be_made_up_is_said(metadata: dict[str, object], reason: str, named: str) -> None:
    with pytest.raises(Invalid) as caught:
        make_requests(metadata, InputOptions())
    assert caught.value.reason == reason
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param(
            InputOptions(shapes={"y": (3,)}), "--shape y x", id="a shape of an input that the model does not need"
        ),
        pytest.param(InputOptions(rows=10**7), "64 10,000,000 --rows --distinct 13", id="more than fits into memory"),
        pytest.param(InputOptions(shapes={"x": (10**6, 10**6)}), "--shape", id="one that fits into none"),
    ],
)
def test_what_was_asked_for_in_vain_or_is_too_large_is_refused_before_it_is_made(
    options: InputOptions, told: str
) -> None:
    metadata = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}
    with pytest.raises(Invalid) as caught:
        make_requests(metadata, options)
    assert_tells(caught.value.message, told)


def test_rows_are_refused_where_the_model_fixes_them() -> None:
    metadata = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, -1]}, {"name": "s", "datatype": "FP32", "shape": []}]
    }
    with pytest.raises(Invalid) as caught:
        make_requests(metadata, InputOptions(rows=8))
    assert_tells(caught.value.message, "--rows 8 first axis")
    assert len(make_requests(metadata, InputOptions(rows=1, distinct=2))) == 2


@pytest.mark.parametrize(
    ("given", "found"),
    [
        pytest.param("http://h:1/v2/models/m", "http://h:1/v2/models/m/infer", id="a model"),
        pytest.param("http://h/ns/v2/models/m/", "http://h/ns/v2/models/m/infer", id="with a namespace and a slash"),
        pytest.param("https://h/v2/models/m/versions/2/infer", "https://h/v2/models/m/versions/2/infer", id="as it is"),
    ],
)
def test_the_infer_url(given: str, found: str) -> None:
    assert infer_url(given) == found


@pytest.mark.parametrize("given", ["http://h", "ftp://h/v2/models/m", "http:///v2/models/m", "http://h/models/m"])
def test_a_url_of_no_model_is_refused(given: str) -> None:
    with pytest.raises(Invalid) as caught:
        infer_url(given)
    assert caught.value.reason == "InvalidURL"


def test_a_request_as_it_goes_over_the_wire_names_no_password() -> None:
    content = http_request("http://me:secret@h:9/v2/models/m/infer?a=1", RequestBody(b"{}", {"A": "b"}), {"C": "d"})
    head, _, body = content.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /v2/models/m/infer?a=1 HTTP/1.1", b"Host: h:9", b"A: b", b"C: d", b"Content-Length: 2",
    ]  # fmt: skip
    assert body == b"{}"
