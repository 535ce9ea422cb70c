"""The codec against the simple model of `documents`."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.documents import Meaning, RefusedError, batchable, datatypes, joining_of, meaning, requests, signatures

from penstock.errors import Invalid
from penstock.protocol.datatypes import DTYPES, Array
from penstock.protocol.refusals import status_of
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_serving.replica.cache.keys import InputKeys
from penstock_serving.replica.codec.documents import RequestDecoder
from penstock_serving.replica.codec.requests import InferRequest, RequestedOutput
from penstock_serving.replica.codec.responses import ResponseEncoder

T = TypeVar("T")

_ROUNDED = {DataType.FP16: 1e-3, DataType.BF16: 1e-2, DataType.FP32: 1e-6}
_LEAST = {DataType.FP16: 6e-8, DataType.BF16: 1e-40, DataType.FP32: 2e-45}


@given(st.data())
def decoding(data: st.DataObject) -> None:
    """A request becomes what the model says, or 400 where it says that."""
    signature = data.draw(signatures())
    body, length = data.draw(requests(signature))
    try:
        wanted = meaning(signature, body, length)
    except RefusedError:
        wanted = None
    found = _or_refusal(lambda: RequestDecoder(signature, joining_of(signature)).decode(body, length))
    if isinstance(found, Invalid):
        assert status_of(found) == 400, found
        assert wanted is None, f"refused what is right: {found.message}: {body!r} {length} for {signature}"
        return
    assert wanted is not None, f"took what is wrong: {body!r} {length} for {signature}"
    _agree(found, wanted, signature)
    keys = InputKeys("sha256:0", "ns", signature)
    assert keys.key(found.inputs)
    keys.sample(found.inputs)


@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(0, 250)))
def arbitrary_bodies(body: bytes, length: int | None) -> None:
    """Whatever comes, there is nothing but an answer or 400."""
    signature = Signature(
        inputs=(TensorSpec(name="x", datatype=DataType.FP32, shape=(-1,)),),
        outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1,)),),
    )
    for sent in (body, b'{"inputs":[' + body, b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":' + body):
        for form in (sent, bytearray(sent)):
            found = _or_refusal(partial(RequestDecoder(signature).decode, form, length))
            assert not isinstance(found, Invalid) or status_of(found) == 400


@given(st.data())
def encoding(data: st.DataObject) -> None:
    """An answer, read by other means, is what the model gave."""
    datatype = data.draw(datatypes)
    shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=3)))
    array = data.draw(arrays(datatype, shape))
    binary = data.draw(st.booleans())
    identity = data.draw(st.one_of(st.none(), st.text(max_size=3)))
    request = InferRequest({}, 1, (), (RequestedOutput("y", datatype, binary),), identity)
    found = _or_refusal(lambda: ResponseEncoder("m", "1").encode(request, {"y": array}))
    if isinstance(found, Invalid):
        assert status_of(found) == 406
        assert "'y'" in found.message
        assert not binary, "bytes can hold everything"
        assert not _json_can(array, datatype), found.message
        return
    body, length = found
    document = json.loads(body if length is None else body[:length], parse_constant=_never)
    assert (document["model_name"], document.get("id")) == ("m", identity)
    (output,) = document["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("y", datatype.value, list(shape))
    if not binary:
        assert length is None
        assert _json_can(array, datatype)
        _check_values(output["data"], array, datatype)
        return
    raw = body[length:]
    assert output["parameters"] == {"binary_data_size": len(raw)}
    again = RequestDecoder(
        Signature(inputs=(TensorSpec(name="x", datatype=datatype, shape=(-1,) * len(shape)),), outputs=())
    )
    tensor = {"name": "x", "datatype": datatype.value, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    header = json.dumps({"inputs": [tensor]}).encode()
    back = again.decode(header + raw, len(header)).inputs["x"]
    assert back.shape == shape
    assert back.tolist() == array.tolist() or back.tobytes() == array.tobytes()


def _or_refusal(attempt: Callable[[], T]) -> T | Invalid:
    try:
        return attempt()
    except Invalid as error:
        return error


def _never(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def _json_can(array: Array, datatype: DataType) -> bool:
    if datatype is DataType.BYTES:
        try:
            return all(element.decode() is not None for element in array.ravel())
        except UnicodeDecodeError:
            return False
    if datatype is DataType.BF16:
        return all(math.isfinite(value) for value in _floats_of(array))
    return bool(np.isfinite(array).all())


def _floats_of(array: Array) -> list[float]:
    return [struct.unpack("<f", struct.pack("<I", int(bits) << 16))[0] for bits in array.ravel()]


def _check_values(found: list[Any], array: Array, datatype: DataType) -> None:
    wanted: list[Any] = array.ravel().tolist()
    if datatype is DataType.BYTES:
        wanted = [element.decode() for element in wanted]
    if datatype is DataType.BF16:
        wanted = _floats_of(array)
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        same = type(mine) is type(theirs) and mine == theirs
        assert same or (isinstance(theirs, float) and np.float32(mine) == np.float32(theirs)), (mine, theirs)


@st.composite
def arrays(draw: st.DrawFn, datatype: DataType, shape: tuple[int, ...]) -> Array:
    count = math.prod(shape)
    if datatype is DataType.BYTES:
        flat = np.empty(count, dtype=object)
        flat[:] = draw(st.lists(st.binary(max_size=4), min_size=count, max_size=count))
        return flat.reshape(shape)
    dtype = DTYPES[datatype]
    size = count * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if datatype is DataType.BOOL:
        raw = bytes(byte & 1 for byte in raw)
    array = np.frombuffer(raw, dtype=dtype).reshape(shape)
    # A model may give what does not lie in order.
    return np.asfortranarray(array) if shape and draw(st.booleans()) else array


def _agree(found: InferRequest, wanted: Meaning, signature: Signature) -> None:
    specs = {spec.name: spec for spec in (*signature.inputs, *signature.optional)}
    assert set(found.inputs) == set(wanted.inputs)
    for name, (shape, elements) in wanted.inputs.items():
        array, datatype = found.inputs[name], specs[name].datatype
        assert list(array.shape) == shape
        assert array.dtype == DTYPES[datatype]
        got = _floats_of(array) if datatype is DataType.BF16 else array.ravel().tolist()
        for mine, theirs in zip(got, elements, strict=True):
            assert _equal(mine, theirs, datatype), (name, mine, theirs)
    assert [(each.name, each.binary) for each in found.outputs] == wanted.outputs
    assert (found.id, found.priority, found.timeout_seconds) == (wanted.id, wanted.priority, wanted.timeout_seconds)
    if batchable(signature):
        assert found.rows == wanted.inputs[signature.inputs[0].name][0][0]


def _equal(mine: Any, theirs: Any, datatype: DataType) -> bool:
    if isinstance(theirs, float):
        both_nan = math.isnan(mine) and math.isnan(theirs)
        relative, least = _ROUNDED.get(datatype, 1e-15), _LEAST.get(datatype, 0.0)
        return both_nan or math.isclose(mine, theirs, rel_tol=relative, abs_tol=least)
    return bool(mine == theirs)
