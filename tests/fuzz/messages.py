"""gRPC's decoder and encoder against the HTTP codec and against the messages that protobuf's own compiler made."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.fuzz.codec import arrays
from tests.fuzz.documents import joining_of, requests, signatures
from tritonclient.grpc import service_pb2 as stubs

from penstock.errors import Invalid
from penstock.protocol.datatypes import Array, array_to_bytes
from penstock.protocol.refusals import Refusal
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_serving.replica.codec.documents import RequestDecoder
from penstock_serving.replica.codec.requests import InferRequest, RequestedOutput
from penstock_serving.replica.grpc.answers import MessageEncoder
from penstock_serving.replica.grpc.fields import SplitRequest, _split_by_library, split_request
from penstock_serving.replica.grpc.messages import CONTENTS, MessageDecoder

_SIGNATURE: Final = Signature(
    inputs=(TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 2)),),
    outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, 2)),),
)
_PARAMETERS: Final = st.dictionaries(
    st.text(max_size=3),
    st.one_of(
        st.builds(dict, bool_param=st.booleans()),
        st.builds(dict, string_param=st.text(max_size=3)),
        st.builds(dict, double_param=st.floats()),
    ),
    max_size=2,
)


@given(st.data())
def same_as_http(data: st.DataObject) -> None:
    """What HTTP's codec takes is, as a message in either form, the same request."""
    signature = data.draw(signatures())
    body, length = data.draw(requests(signature))
    try:
        wanted = RequestDecoder(signature, joining_of(signature)).decode(body, length)
    except Invalid:
        assume(False)
    decoder = MessageDecoder("ns", "m", "1", signature, joining_of(signature))
    specs = {spec.name: spec for spec in (*signature.inputs, *signature.optional)}
    message = stubs.ModelInferRequest(
        model_name=data.draw(st.sampled_from(["m", "ns/m"])), model_version=data.draw(st.sampled_from(["", "1"]))
    )
    if wanted.timeout_seconds is not None:
        message.parameters["timeout"].int64_param = round(wanted.timeout_seconds * 1e6)
    message.parameters["priority"].uint64_param = wanted.priority
    for output in wanted.outputs:
        message.outputs.add(name=output.name)
    typed = all(specs[name].datatype in CONTENTS for name in wanted.inputs) and data.draw(st.booleans())
    for name, array in wanted.inputs.items():
        tensor = message.inputs.add(name=name, datatype=specs[name].datatype.value, shape=array.shape)
        if typed:
            getattr(tensor.contents, CONTENTS[specs[name].datatype]).extend(array.ravel().tolist())
        else:
            message.raw_input_contents.append(array_to_bytes(array, specs[name].datatype))
    for identity in (wanted.id, "another", wanted.id):
        message.id = identity or ""
        _agree(_decode(decoder, message), wanted, identity, binary=not typed)


def _decode(decoder: MessageDecoder, message: Any) -> InferRequest:
    wire = message.SerializeToString()
    return decoder.decode(wire, 0, len(wire))


def _agree(found: InferRequest, wanted: InferRequest, identity: str | None, *, binary: bool) -> None:
    assert set(found.inputs) == set(wanted.inputs)
    for name, array in wanted.inputs.items():
        mine = found.inputs[name]
        assert (mine.shape, mine.dtype) == (array.shape, array.dtype)
        assert mine.tolist() == array.tolist() or mine.tobytes() == array.tobytes(), name
    assert [output.name for output in found.outputs] == [output.name for output in wanted.outputs]
    assert {output.binary for output in found.outputs} == {binary}
    assert (found.id or "", found.rows) == (identity or "", wanted.rows)
    assert (found.priority, found.timeout_seconds) == (wanted.priority, wanted.timeout_seconds)
    # A bucket that is a request's own is never another's.
    own = any(min(part, default=0) < 0 for part in wanted.bucket)
    assert found.bucket == wanted.bucket or (own and any(min(part, default=0) < 0 for part in found.bucket))


@st.composite
def wires(draw: st.DrawFn) -> bytes:
    """A message that is about right, then perhaps changed in places."""
    message = stubs.ModelInferRequest(
        model_name=draw(st.sampled_from(["m", "ns/m", "n"])),
        id=draw(st.text(max_size=3)),
        parameters=draw(_PARAMETERS),
        inputs=[{"name": "x", "datatype": "FP32", "shape": [draw(st.integers(0, 2)), 2]}],
        outputs=draw(st.lists(st.just({"name": "y"}), max_size=1)),
        raw_input_contents=draw(st.lists(st.binary(max_size=16), max_size=2)),
    )
    wire = bytearray(message.SerializeToString())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(wire)))
        wire[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(wire) + draw(st.sampled_from([b"", b"\x0a\x01m", b"\x1a\x01i", b"\xa0\x06\x01", b"\x3a\x80\x00"]))


@given(wires(), st.binary(max_size=6))
def taken_apart(wire: bytes, before: bytes) -> None:
    """However a message is written or broken, taking it apart gives what protobuf itself reads; else both refuse."""
    body = bytearray(before + wire)
    mine = _read(lambda: split_request(body, len(before), len(body)))
    theirs = _read(lambda: _split_by_library(memoryview(wire)))
    assert mine == theirs


def _read(split: Any) -> tuple[bytes, str, list[bytes]] | None:
    """All that is in a message; None where it is refused."""
    try:
        parts: SplitRequest = split()
        rest = stubs.ModelInferRequest.FromString(parts.rest)
    except (Invalid, DecodeError):
        return None
    return rest.SerializeToString(deterministic=True), parts.identity, [bytes(each) for each in parts.raw]


@given(wires())
def answered_or_refused(wire: bytes) -> None:
    """Whatever comes, it is a request or refused, and the same the second time, when parts of it are known."""
    decoder = MessageDecoder("ns", "m", "1", _SIGNATURE, joining_of(_SIGNATURE))
    found = [_outcome(decoder, wire) for _ in range(2)]
    assert found[0] == found[1]


def _outcome(decoder: MessageDecoder, wire: bytes) -> tuple[str, Any]:
    try:
        request = decoder.decode(wire, 0, len(wire))
    except Invalid as error:
        refused = error
    else:
        return "", (request.inputs["x"].tobytes(), request.id, request.rows)
    assert refused.reason in (Refusal.BAD_REQUEST, Refusal.NOT_FOUND), refused
    return refused.reason, refused.message


@given(st.sampled_from(sorted(DataType)), st.data())
def encoding(datatype: DataType, data: st.DataObject) -> None:
    """An answer, read by the generated messages, is what the model gave."""
    shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=3)))
    array: Array = data.draw(arrays(datatype, shape))
    typed = datatype in CONTENTS and data.draw(st.booleans())
    identity = data.draw(st.one_of(st.none(), st.text(max_size=200)))
    request = InferRequest({}, 1, (), (RequestedOutput("y", datatype, binary=not typed),), identity)
    parts = MessageEncoder("m", "1").encode(request, {"y": array})
    answer = stubs.ModelInferResponse.FromString(b"".join(parts))
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", identity or "")
    (output,) = answer.outputs
    assert (output.name, output.datatype, tuple(output.shape)) == ("y", datatype.value, shape)
    if not typed:
        assert list(answer.raw_output_contents) == [array_to_bytes(array, datatype)]
        return
    assert not answer.raw_output_contents
    got = np.array(list(getattr(output.contents, CONTENTS[datatype])), dtype=array.dtype)
    assert got.tolist() == array.ravel().tolist() or got.tobytes() == array.tobytes()
