"""What the Open Inference Protocol v2 and Triton's extensions ask of a server, requirement by requirement, at a gateway.

`docs/protocol.md` lists the requirements, and which test shows each.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.integration.behind_gateway import Served, behind_gateway
from tests.integration.replica_process import error_of, save_model

MODEL = "/v2/models/tiny"
NUMBERS = {"name": "numbers", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}
FLAGS = {"name": "flags", "shape": [2], "datatype": "BOOL", "data": [True, False]}
TEXT = {"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "ü"]}
INPUTS = [NUMBERS, FLAGS, TEXT]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = save_model(
        tmp_path_factory.mktemp("served") / "model.onnx",
        [
            helper.make_node("Mul", ["numbers", "two"], ["doubled"]),
            helper.make_node("Not", ["flags"], ["turned"]),
            helper.make_node("Identity", ["text"], ["echo"]),
        ],
        {
            "numbers": (TensorProto.FLOAT, ["n", 3]),
            "flags": (TensorProto.BOOL, ["n"]),
            "text": (TensorProto.STRING, ["n", 1]),
        },
        {
            "doubled": (TensorProto.FLOAT, ["n", 3]),
            "turned": (TensorProto.BOOL, ["n"]),
            "echo": (TensorProto.STRING, ["n", 1]),
        },
        {"two": np.array([2], np.float32)},
    )
    with behind_gateway(path) as started:
        yield started


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.gateway.url, timeout=60) as opened:
        yield opened


def infer(client: httpx.Client, path: str = MODEL, **changes: Any) -> dict[str, Any]:
    answer = client.post(f"{path}/infer", json={"inputs": INPUTS, **changes})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def refused(client: httpx.Client, body: object, path: str = f"{MODEL}/infer") -> str:
    answer = client.post(path, json=body)
    assert answer.status_code >= 400
    assert answer.headers["content-type"] == "application/json"
    return error_of(answer)


@pytest.mark.parametrize("path", [MODEL, f"{MODEL}/versions/1"])
def test_a_model_is_at_its_path_with_and_without_a_version(client: httpx.Client, path: str) -> None:
    assert client.get(path).json()["name"] == "tiny"
    assert client.get(f"{path}/ready").json() == {"name": "tiny", "ready": True}
    assert infer(client, path)["model_version"] == "1"


@pytest.mark.parametrize("path", [f"{MODEL}/versions/7", "/v2/models/other", "/v2/models/other/versions/1"])
def test_a_model_or_version_that_is_not_there_is_an_error(client: httpx.Client, path: str) -> None:
    for answer in (
        client.get(path),
        client.get(f"{path}/ready"),
        client.post(f"{path}/infer", json={"inputs": INPUTS}),
    ):
        assert (answer.status_code, bool(error_of(answer))) == (404, True)


def test_the_server_says_whether_it_lives_and_is_ready(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").status_code == 200


def test_the_server_describes_itself(client: httpx.Client) -> None:
    answer = client.get("/v2")
    assert answer.status_code == 200
    found = answer.json()
    assert {name: type(value) for name, value in found.items()} == {"name": str, "version": str, "extensions": list}
    assert all(type(each) is str for each in found["extensions"])


def test_a_model_is_described_with_versions_platform_and_every_tensor(client: httpx.Client) -> None:
    found = client.get(MODEL).json()
    assert (found["name"], found["versions"], found["platform"]) == ("tiny", ["1"], "onnx_onnxv1")
    assert found["inputs"] == [
        {"name": "numbers", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "flags", "datatype": "BOOL", "shape": [-1]},
        {"name": "text", "datatype": "BYTES", "shape": [-1, 1]},
    ]
    assert [each["name"] for each in found["outputs"]] == ["doubled", "turned", "echo"]


def test_an_answer_has_every_output_whole_with_the_models_name_and_version(client: httpx.Client) -> None:
    found = infer(client)
    assert (found["model_name"], found["model_version"]) == ("tiny", "1")
    assert found["outputs"] == [
        {"name": "doubled", "datatype": "FP32", "shape": [2, 3], "data": [2, 4, 6, 8, 10, 12]},
        {"name": "turned", "datatype": "BOOL", "shape": [2], "data": [False, True]},
        {"name": "echo", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "ü"]},
    ]


@pytest.mark.parametrize("identity", ["42", "", "ü" * 200])
def test_an_id_comes_back_and_none_is_made_up(client: httpx.Client, identity: str) -> None:
    assert infer(client, id=identity)["id"] == identity
    assert "id" not in infer(client)


def test_outputs_that_are_named_come_in_their_order_and_no_others(client: httpx.Client) -> None:
    found = infer(client, outputs=[{"name": "echo"}, {"name": "doubled"}])
    assert [each["name"] for each in found["outputs"]] == ["echo", "doubled"]


def test_parameters_of_a_request_its_inputs_and_outputs_may_be_strings_numbers_and_booleans(
    client: httpx.Client,
) -> None:
    parameters = {"a": "b", "c": 1.5, "d": True, "my_custom_parameter": 42}
    inputs = [{**each, "parameters": parameters} for each in INPUTS]
    outputs = [{"name": "doubled", "parameters": parameters}]
    assert infer(client, inputs=inputs, outputs=outputs, parameters=parameters)["outputs"][0]["data"] == [
        2,
        4,
        6,
        8,
        10,
        12,
    ]


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]], [[1.0, 2, 3], [4, 5, 6.0]]])
def test_data_is_row_major_flat_or_in_its_own_shape(client: httpx.Client, data: list[Any]) -> None:
    found = infer(client, inputs=[{**NUMBERS, "data": data}, FLAGS, TEXT])
    assert found["outputs"][0]["data"] == [2, 4, 6, 8, 10, 12]


WRONG: dict[str, Any] = {
    "no inputs": {},
    "an empty list of inputs": {"inputs": []},
    "an input missing": {"inputs": [NUMBERS, FLAGS]},
    "an unknown input": {"inputs": [*INPUTS, {**FLAGS, "name": "z"}]},
    "a shape that does not fit": {"inputs": [{**NUMBERS, "shape": [3, 2]}, FLAGS, TEXT]},
    "a negative length": {"inputs": [{**NUMBERS, "shape": [-2, 3]}, FLAGS, TEXT]},
    "no shape": {"inputs": [{"name": "numbers", "datatype": "FP32", "data": [1]}, FLAGS, TEXT]},
    "another datatype": {"inputs": [{**NUMBERS, "datatype": "FP64"}, FLAGS, TEXT]},
    "no data": {"inputs": [{"name": "numbers", "datatype": "FP32", "shape": [2, 3]}, FLAGS, TEXT]},
    "too little data": {"inputs": [{**NUMBERS, "data": [1]}, FLAGS, TEXT]},
    "elements of another type": {"inputs": [{**NUMBERS, "data": ["1"] * 6}, FLAGS, TEXT]},
    "an unknown output": {"inputs": INPUTS, "outputs": [{"name": "z"}]},
    "no object": [],
}


@pytest.mark.parametrize("title", WRONG)
def test_a_request_that_is_wrong_gets_400_with_a_descriptive_error(client: httpx.Client, title: str) -> None:
    answer = client.post(f"{MODEL}/infer", json=WRONG[title])
    assert answer.status_code == 400
    assert len(refused(client, WRONG[title])) > 10
    assert infer(client)["outputs"], "and the next one is answered"


def binary_request(**more: Any) -> tuple[bytes, int]:
    """`numbers` and `text` in binary form, `flags` in JSON between them; the body, and the length of its JSON."""
    numbers = np.array(NUMBERS["data"], "<f4").tobytes()
    text = b"".join(struct.pack("<I", len(each)) + each for each in (b"a", "ü".encode()))
    inputs = [
        {"name": "numbers", "shape": [2, 3], "datatype": "FP32", "parameters": {"binary_data_size": len(numbers)}},
        FLAGS,
        {"name": "text", "shape": [2, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(text)}},
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + numbers + text, len(head)


def ask_in_binary(client: httpx.Client, **more: Any) -> tuple[list[dict[str, Any]], bytes, httpx.Headers]:
    """The outputs, the binary data after them, and the headers."""
    body, length = binary_request(**more)
    headers = {"inference-header-content-length": str(length), "content-type": "application/octet-stream"}
    answer = client.post(f"{MODEL}/infer", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    told = answer.headers.get("inference-header-content-length")
    size = len(answer.content) if told is None else int(told)
    return json.loads(answer.content[:size])["outputs"], answer.content[size:], answer.headers


DOUBLED = np.array([2, 4, 6, 8, 10, 12], "<f4").tobytes()
ECHO = struct.pack("<I", 1) + b"a" + struct.pack("<I", 2) + "ü".encode()


def test_binary_and_json_inputs_may_be_mixed(client: httpx.Client) -> None:
    outputs, rest, headers = ask_in_binary(client)
    assert [each["data"] for each in outputs] == [[2, 4, 6, 8, 10, 12], [False, True], ["a", "ü"]]
    assert (rest, headers["content-type"]) == (b"", "application/json")
    assert "inference-header-content-length" not in headers


def test_all_outputs_are_binary_where_that_is_asked_in_their_order(client: httpx.Client) -> None:
    outputs, rest, headers = ask_in_binary(client, parameters={"binary_data_output": True})
    assert [each["parameters"]["binary_data_size"] for each in outputs] == [len(DOUBLED), 2, len(ECHO)]
    assert not any("data" in each for each in outputs)
    assert (rest, headers["content-type"]) == (DOUBLED + b"\0\1" + ECHO, "application/octet-stream")


def test_an_outputs_own_word_on_its_form_goes_before_the_requests(client: httpx.Client) -> None:
    asked = [{"name": "echo", "parameters": {"binary_data": True}}, {"name": "doubled"}]
    outputs, rest, _ = ask_in_binary(client, outputs=asked)
    assert (outputs[0]["parameters"]["binary_data_size"], outputs[1]["data"]) == (len(ECHO), [2, 4, 6, 8, 10, 12])
    assert rest == ECHO
    asked = [{"name": "echo", "parameters": {"binary_data": False}}, {"name": "doubled"}]
    outputs, rest, _ = ask_in_binary(client, outputs=asked, parameters={"binary_data_output": True})
    assert (outputs[0]["data"], rest) == (["a", "ü"], DOUBLED)


def test_classes_are_told_in_place_of_an_output(client: httpx.Client) -> None:
    asked = [{"name": "doubled", "parameters": {"classification": 2}}]
    (found,) = infer(client, outputs=asked)["outputs"]
    assert found == {
        "name": "doubled",
        "datatype": "BYTES",
        "shape": [2, 2],
        "data": ["6.0:2", "4.0:1", "12.0:2", "10.0:1"],
    }


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/models/tiny/load",
        "/v2/repository/models/tiny/unload",
        "/v2/logging",
        "/v2/systemsharedmemory/region/a/register",
        "/v2/cudasharedmemory/region/a/register",
        "/v2/models/tiny/generate",
    ],
)
def test_what_is_not_there_is_an_error_in_the_protocols_form(client: httpx.Client, path: str) -> None:
    assert client.post(path, json={}).status_code == 404
    assert refused(client, {}, path)


def test_shared_memory_is_refused(client: httpx.Client) -> None:
    shared = {"shared_memory_region": "r", "shared_memory_byte_size": 24}
    inputs = [{"name": "numbers", "shape": [2, 3], "datatype": "FP32", "parameters": shared}, FLAGS, TEXT]
    assert "shared memory" in refused(client, {"inputs": inputs})
    assert "shared memory" in refused(
        client, {"inputs": INPUTS, "outputs": [{"name": "doubled", "parameters": shared}]}
    )
