from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.fuzz.server import make_replica

from penstock.protocol.openapi.document import ServedModel, openapi_document
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_serving.gateway.haproxy.access_rules import OWN_PATHS
from penstock_serving.gateway.table.paths import ModelOperation, parse_path
from penstock_serving.replica.codec.documents import RequestDecoder

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 2)),
        TensorSpec(name="text", datatype=DataType.BYTES, shape=(3,)),
        TensorSpec(name="flags", datatype=DataType.BOOL, shape=()),
    ),
    outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1,)),),
    optional=(TensorSpec(name="more", datatype=DataType.INT64, shape=(1,)),),
)
AT_REPLICA = ServedModel("m", "1", SIGNATURE)


def paths(model: ServedModel | None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openapi_document("default", model))["paths"]
    return found


def operations(model: ServedModel | None) -> set[tuple[str, str]]:
    return {
        (method.upper(), path.replace("{model}", "m").replace("{version}", "1"))
        for path, item in paths(model).items()
        for method in item
        if method in ("get", "post")
    }


def test_a_replicas_document_has_what_its_front_answers_and_no_more() -> None:
    async def routes() -> set[tuple[str, str]]:
        service, front = make_replica(SIGNATURE, cached=False)
        service.executor.close()
        refused = front._refuse_trace_settings
        return {("GET", path.decode()) for path in front._gets} | {
            ("POST", path.decode()) for path, route in front._posts.items() if route != refused
        }

    found = asyncio.run(routes())
    unlisted = {("GET", "/metrics"), ("GET", "/v2/")}
    own = {each for each in found if each[1].startswith("/v2")} - unlisted
    assert operations(AT_REPLICA) == own
    assert found - own - unlisted == {(method, f"/default{path}") for method, path in own | {("GET", "/v2/")}}


def test_a_gateways_document_has_the_paths_that_it_lets_through() -> None:
    found = operations(None)
    assert found == operations(AT_REPLICA)
    named = {(parse_path("default", path), method) for method, path in found}
    assert {(each.asked, method) for each, method in named if each is not None} == {
        (asked, asked.method) for asked in ModelOperation if asked is not ModelOperation.NOTHING
    }
    assert {path for _, path in found if parse_path("default", path) is None} == {
        *(path for path in OWN_PATHS if path != "/v2/"),
        "/v2/health/live",
        "/v2/health/ready",
    }


@pytest.mark.parametrize("title", ["inputs of several types", "a long input", "an input of any rank"])
def test_an_example_is_one_that_the_model_takes(title: str) -> None:
    spec = {
        "inputs of several types": None,
        "a long input": TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 3, 224, 224)),
        "an input of any rank": TensorSpec(name="x", datatype=DataType.FP32, shape=(), any_rank=True),
    }[title]
    signature = SIGNATURE if spec is None else SIGNATURE.model_copy(update={"inputs": (spec,)})
    infer = paths(ServedModel("m", "1", signature))["/v2/models/{model}/infer"]["post"]
    content = infer["requestBody"]["content"]["application/json"]
    assert ("example" in content) == (spec is None)
    if spec is None:
        request = RequestDecoder(signature).decode(json.dumps(content["example"]).encode())
        assert {name: array.shape for name, array in request.inputs.items()} == {"x": (1, 2), "text": (3,), "flags": ()}


def test_a_replicas_document_knows_its_model() -> None:
    document = json.loads(openapi_document("team", AT_REPLICA))
    schemas = document["components"]["schemas"]
    names = [each["properties"]["name"]["const"] for each in schemas["request_input"]["anyOf"]]
    assert names == ["x", "text", "flags", "more"]
    assert schemas["request_output"]["properties"]["name"] == {"enum": ["y"]}
    assert [each["url"] for each in document["servers"]] == ["/", "/{namespace}"]
    assert document["servers"][1]["variables"]["namespace"]["default"] == "team"
