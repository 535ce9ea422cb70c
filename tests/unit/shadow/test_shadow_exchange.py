"""What replicas show each other, through the replica's own decoder and encoder, and answers that are none."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol.datatypes import DTYPES, Array
from penstock.routing.shadowing import SHADOW_HEADER, Shown, shadow_words
from penstock.routing.tokens import former_replica_token, replica_token, word_for
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_serving.replica.codec.documents import RequestDecoder
from penstock_serving.replica.codec.responses import ResponseEncoder
from penstock_serving.replica.shadow.exchange import NOTHING, PeerAnswer, PeerReply, ShadowRequests, read_reply

TOKEN = replica_token("secret", "ns", "m", "u")


def filled(datatype: DataType) -> Array:
    if datatype is DataType.BYTES:
        made = np.empty((2, 3), dtype=object)
        made.ravel()[:] = [b"", b"a", "ä".encode(), b"\xff", b"x" * 300, b"1"]
        return made
    return np.arange(6).reshape(2, 3).astype(DTYPES[datatype])


SIGNATURE = Signature(
    inputs=tuple(TensorSpec(name=each.value, datatype=each, shape=(-1, 3)) for each in DataType),
    outputs=tuple(TensorSpec(name=each.value, datatype=each, shape=(-1, 3)) for each in DataType),
)
ARRAYS = {each.value: filled(each) for each in DataType}


def test_tensors_of_all_types_come_through_as_they_are() -> None:
    requests = ShadowRequests("ns", "m", TOKEN, SIGNATURE)
    body = requests.encode(ARRAYS)
    request = RequestDecoder(SIGNATURE).decode(b"".join(body), len(body[0]))
    content, json_length = ResponseEncoder("m", "1").encode(request, request.inputs)
    answer = read_reply(PeerReply(200, content, json_length))
    assert answer.outputs is not None
    assert {name: each.datatype for name, each in answer.outputs.items()} == {each.value: each for each in DataType}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(answer.outputs[name].array, array)


def test_a_request_says_who_shows_it_and_why() -> None:
    requests = ShadowRequests("ns", "m", TOKEN, SIGNATURE)
    head = requests.head(Shown.REPLAYED, "10.0.0.1:8000", (b"{}", b"abc")).decode()
    assert head.splitlines() == [
        "POST /v2/models/m/infer HTTP/1.1",
        f"x-penstock-gateway: {word_for('secret', ('ns', 'm'), 'u')}",
        f"{SHADOW_HEADER}: {shadow_words(TOKEN)[Shown.REPLAYED]}",
        "Host: 10.0.0.1:8000",
        "Inference-Header-Content-Length: 2",
        "Content-Length: 5",
        "",
    ]
    assert requests.possible


@pytest.mark.parametrize("token", ["", "secret", former_replica_token("secret", "ns", "m")])
def test_who_registers_by_a_former_token_shows_nothing(token: str) -> None:
    assert not ShadowRequests("ns", "m", token, SIGNATURE).possible


def test_words_are_of_one_model_and_one_reason() -> None:
    words = [
        *shadow_words(TOKEN).values(),
        *shadow_words(replica_token("secret", "ns", "n", "u")).values(),
        *shadow_words(replica_token("secret", "ns", "m", "v")).values(),
    ]
    assert len(set(words)) == 3 * len(Shown)


OUTPUT = {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}


def reply(outputs: Any, blob: bytes = bytes(8)) -> PeerReply:
    text = orjson.dumps({"outputs": outputs})
    return PeerReply(200, text + blob, len(text))


@pytest.mark.parametrize(
    "status", [401, 403, 404, 408, 413, 429, 503, 504], ids=lambda status: f"a refusal with {status}"
)
def test_who_is_busy_or_another_tells_nothing(status: int) -> None:
    assert read_reply(PeerReply(status, b'{"error":"no"}')) == NOTHING


@pytest.mark.parametrize(
    ("got", "failure"),
    [
        pytest.param(PeerReply(500, b"oh"), "HTTP 500 oh", id="an error"),
        pytest.param(PeerReply(400, b"\xff"), "HTTP 400 \ufffd", id="a refusal of the input"),
        pytest.param(PeerReply(200, b"{}"), "it does not say how much of it is JSON", id="no length"),
        pytest.param(PeerReply(200, b"{}", 3), "it does not say how much of it is JSON", id="too long a length"),
        pytest.param(PeerReply(200, b"{}", 2), "it has no JSON with 'outputs'", id="no outputs"),
        pytest.param(PeerReply(200, b"[]", 2), "it has no JSON with 'outputs'", id="another document"),
        pytest.param(PeerReply(200, b"<html>", 6), "it has no JSON with 'outputs'", id="no JSON"),
        pytest.param(reply({"y": 1}), "'outputs' is no list", id="no list"),
        pytest.param(reply([1]), "an output lacks its name", id="no tensor"),
        pytest.param(reply([OUTPUT | {"datatype": "FP8"}]), "an output lacks its name", id="no such type"),
        pytest.param(reply([OUTPUT | {"shape": [-2]}]), "output 'y' has no shape", id="a negative shape"),
        pytest.param(reply([OUTPUT | {"shape": [True, 2]}]), "output 'y' has no shape", id="a shape of flags"),
        pytest.param(reply([OUTPUT | {"shape": [0, 1 << 62, 1 << 62]}], b""), "output 'y' has no size that fits", id="size"),
        pytest.param(reply([OUTPUT | {"shape": [3]}]), "output 'y': 3 elements of FP32 are 12 bytes", id="another count"),
        pytest.param(reply([OUTPUT], bytes(9)), "1 bytes belong to no output", id="bytes left over"),
        pytest.param(reply([OUTPUT], bytes(7)), "output 'y' has no size that fits", id="bytes missing"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_a_failure(got: PeerReply, failure: str) -> None:
    answer = read_reply(got)
    assert answer.outputs is None
    assert failure in answer.failure


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
ITEMS = st.fixed_dictionaries(
    {"name": JSON, "datatype": st.sampled_from([*DataType]) | JSON, "shape": st.lists(st.integers(-1, 1 << 70)) | JSON},
    optional={"parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 12) | JSON}) | JSON},
)


@given(outputs=st.lists(ITEMS | JSON, max_size=3) | JSON, blob=st.binary(max_size=12), status=st.integers(200, 599))
def test_whatever_comes_is_read_without_an_error(outputs: Any, blob: bytes, status: int) -> None:
    text = json.dumps({"outputs": outputs}).encode()
    answer = read_reply(PeerReply(status, text + blob, len(text)))
    assert isinstance(answer, PeerAnswer)
    assert answer.outputs is None or not answer.failure
