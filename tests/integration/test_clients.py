"""Clients of others, as they are, at a real replica behind a real gateway."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tests.integration.behind_gateway import Served, behind_gateway
from tests.integration.gateway_parts import GUARD_SECONDS
from tests.integration.replica_process import document, error_of, linear_weights, save_linear
from tests.telling import assert_tells
from tritonclient.utils import InferenceServerException

ROWS = np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32)
ROOT = Path(__file__).resolve().parents[2]
CODINGS = (None, "gzip", "deflate")
LIMIT = 1 << 20
INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    model = save_linear(tmp_path_factory.mktemp("served") / "model.onnx")
    with behind_gateway(model, max_body_bytes=LIMIT) as started:
        yield started


def tensor(*, binary: bool) -> triton.InferInput:
    made = triton.InferInput("x", list(ROWS.shape), "FP32")
    made.set_data_from_numpy(ROWS, binary_data=binary)
    return made


def post(url: str, body: bytes, **headers: str) -> tuple[httpx.Response, bytes]:
    """An answer, and its body as it came over the wire. Nothing is asked for but what `headers` say."""
    named = {"accept-encoding": "", "content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    with httpx.Client(timeout=GUARD_SECONDS) as client, client.stream("POST", url, content=body, headers=named) as got:
        raw = b"".join(got.iter_raw())
        return got, raw


@pytest.mark.parametrize("place", ["", "/default"], ids=["default namespace", "named namespace"])
@pytest.mark.parametrize("answer", CODINGS)
@pytest.mark.parametrize("request_coding", CODINGS)
@pytest.mark.parametrize("binary_input", [False, True], ids=["JSON in", "binary in"])
@pytest.mark.parametrize("binary_output", [False, True], ids=["JSON out", "binary out"])
def test_tritons_client_gets_the_models_output_in_every_form(
    served: Served,
    place: str,
    request_coding: str | None,
    answer: str | None,
    *,
    binary_input: bool,
    binary_output: bool,
) -> None:
    with triton.InferenceServerClient(served.address + place) as client:
        result = client.infer(
            "tiny",
            [tensor(binary=binary_input)],
            outputs=[triton.InferRequestedOutput("y", binary_data=binary_output)],
            request_id="42",
            request_compression_algorithm=request_coding,
            response_compression_algorithm=answer,
        )
    assert result.get_response()["id"] == "42"
    np.testing.assert_allclose(result.as_numpy("y"), ROWS @ linear_weights(), rtol=1e-4, atol=1e-5)


def test_a_load_as_perf_analyzer_makes_it_gets_every_answer(served: Served) -> None:
    """What it asks first (`ServerExtensions`, `ModelMetadata`, `ModelConfig` of its Triton backend), then closed loops."""

    async def ask() -> int:
        async with triton_aio.InferenceServerClient(served.address, conn_limit=8) as client:
            extensions = (await client.get_server_metadata())["extensions"]
            metadata, configuration = await client.get_model_metadata("tiny"), await client.get_model_config("tiny")
            batched = configuration["max_batch_size"] > 0
            taken = {each["name"]: each["shape"][batched:] for each in metadata["inputs"]}
            assert taken == {each["name"]: each["dims"] for each in configuration["input"]} == {"x": [64]}
            assert not configuration["model_transaction_policy"]["decoupled"]
            assert "statistics" not in extensions or (await client.get_inference_statistics("tiny"))["model_stats"]

            async def loop(number: int) -> int:
                for turn in range(50):
                    rows = ROWS[(number + turn) % 30 :][: 1 + turn % 3]
                    each = triton.InferInput("x", list(rows.shape), "FP32")
                    each.set_data_from_numpy(rows, binary_data=bool(number % 2))
                    found = (await client.infer("tiny", [each])).as_numpy("y")
                    np.testing.assert_allclose(found, rows @ linear_weights(), rtol=1e-4, atol=1e-5)
                return 50

            return sum(await asyncio.gather(*(loop(number) for number in range(8))))

    assert asyncio.run(ask()) == 400


KSERVE = "kserve==0.21.0"
"""It wants older releases of protobuf and psutil than Penstock has, and gets an environment of its own, which uv keeps."""


@pytest.mark.parametrize("place", ["", "/default"], ids=["default namespace", "named namespace"])
def test_kserves_client_gets_the_models_output(served: Served, place: str) -> None:
    asked = [
        str(ROOT / "scripts" / "uv"), "run", "--quiet", "--no-project", "--isolated", "--python", sys.executable, "--with", KSERVE,
        "python", str(Path(__file__).with_name("kserve_client.py")), served.gateway.url + place,
    ]  # fmt: skip
    ended = subprocess.run(asked, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert [found[each] for each in ("live", "ready", "model ready")] == [True] * 3
    rows = np.arange(128, dtype=np.float32).reshape(2, 64) / 100
    for form in ("JSON", "binary"):
        identity, values = found[form]
        assert identity == "42"
        np.testing.assert_allclose(np.reshape(values, (2, 10)), rows @ linear_weights(), rtol=1e-4, atol=1e-4)
    assert "inputs: 'x' missing" in found["refusal"]


def test_tritons_asynchronous_clients_get_the_models_output(served: Served) -> None:
    async def ask() -> list[np.ndarray[Any, Any]]:
        async with triton_aio.InferenceServerClient(served.address) as client:
            assert await client.is_server_live()
            assert await client.is_model_ready("tiny")
            results = await asyncio.gather(
                *(
                    client.infer(
                        "tiny",
                        [tensor(binary=True)],
                        request_compression_algorithm=there,
                        response_compression_algorithm=back,
                    )
                    for there in CODINGS
                    for back in CODINGS
                )
            )
            return [each.as_numpy("y") for each in results]

    found = asyncio.run(ask())
    with triton.InferenceServerClient(served.address, concurrency=4) as client:
        waiting = [client.async_infer("tiny", [tensor(binary=False)]) for _ in range(8)]
        found += [each.get_result().as_numpy("y") for each in waiting]
    assert len(found) == 17
    for each in found:
        np.testing.assert_allclose(each, ROWS @ linear_weights(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", ["", "/default"], ids=["default namespace", "named namespace"])
def test_tritons_client_looks_at_the_server_and_its_models(served: Served, place: str) -> None:
    with triton.InferenceServerClient(served.address + place) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny", "1")
        assert {"binary_tensor_data", "model_configuration"} <= set(client.get_server_metadata()["extensions"])
        assert client.get_model_metadata("tiny", "1")["inputs"] == [
            {"name": "x", "datatype": "FP32", "shape": [-1, 64]}
        ]
        for version in ("", "1"):
            found = client.get_model_config("tiny", version)
            assert (found["name"], found["max_batch_size"]) == ("tiny", 32)
            assert found["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [64]}]
        entry = {"name": "tiny", "version": "1", "state": "READY", "reason": ""}
        assert client.get_model_repository_index() == [entry]
        for model in (None, "tiny"):
            assert client.get_trace_settings(model)["trace_level"] == ["OFF"]
            with pytest.raises(InferenceServerException, match="InferenceDeployment") as refused:
                client.update_trace_settings(model, {"trace_level": ["TIMESTAMPS"]})
            assert refused.value.status() == "405"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/repository/index", "POST"),
        ("POST", "/v2", "GET, HEAD"),
        ("DELETE", "/v2/health/ready", "GET, HEAD"),
        ("PUT", "/v2/trace/setting", "GET, HEAD"),
        ("POST", "/v2/trace/setting", "GET, HEAD"),
        ("GET", INFER, "POST"),
        ("POST", "/v2/models/tiny/config", "GET, HEAD"),
        ("PUT", "/v2/models/tiny/trace/setting", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_which_are_right(served: Served, method: str, path: str, allowed: str) -> None:
    answer = httpx.request(method, served.gateway.url + path, content=b"{}" if method != "GET" else None)
    assert (answer.status_code, answer.headers.get("allow")) == (405, allowed), answer.text
    assert path in error_of(answer)


def test_the_index_lists_models_that_are_ready_alone_where_that_is_asked(served: Served) -> None:
    url = served.gateway.url + "/v2/repository/index"
    assert [each["name"] for each in httpx.post(url, json={"ready": True}).json()] == ["tiny"]
    assert httpx.post(url, json={"ready": 1}).status_code == 400
    assert httpx.post(url, content=b" " * 5000).status_code == 413
    assert httpx.post(served.gateway.url + "/elsewhere/v2/repository/index").json() == []
    compressed = httpx.post(url, content=gzip.compress(b"{}"), headers={"content-encoding": "gzip"})
    assert (compressed.status_code, compressed.headers["accept-encoding"]) == (415, "identity")


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
def test_tritons_client_gets_the_best_classes(served: Served, *, binary: bool) -> None:
    wanted = [triton.InferRequestedOutput("y", binary_data=binary, class_count=3)]
    with triton.InferenceServerClient(served.address) as client:
        found = client.infer("tiny", [tensor(binary=True)], outputs=wanted).as_numpy("y")
    scores = ROWS @ linear_weights()
    assert found.shape == (len(ROWS), 3)
    for row, best in zip(scores, found, strict=True):
        said = [each.decode() if isinstance(each, bytes) else each for each in best.tolist()]
        places = [int(each.split(":")[1]) for each in said]
        assert places == np.argsort(-row, kind="stable")[:3].tolist()
        np.testing.assert_allclose([float(each.split(":")[0]) for each in said], row[places], rtol=1e-4)


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
def test_a_compressed_answer_is_the_one_that_comes_without(served: Served, *, binary: bool) -> None:
    body = json.dumps({**document(ROWS), "parameters": {"binary_data_output": binary}}).encode()
    url = served.gateway.url + INFER
    plain, content = post(url, body)
    assert "content-encoding" not in plain.headers
    for coding, undo in (("gzip", gzip.decompress), ("deflate", zlib.decompress)):
        sent = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
        answer, raw = post(url, sent, content_encoding=coding, accept_encoding=coding)
        assert answer.headers["content-encoding"] == coding
        assert len(raw) < len(content)
        assert undo(raw) == content
        length = "inference-header-content-length"
        assert answer.headers.get(length) == plain.headers.get(length)
        answer, raw = post(url, sent, content_encoding=coding, accept_encoding="identity")
        assert "content-encoding" not in answer.headers
        assert raw == content


def test_a_short_answer_is_not_worth_compressing(served: Served) -> None:
    answer, raw = post(served.gateway.url + INFER, json.dumps(document(ROWS[:1])).encode(), accept_encoding="gzip")
    assert "content-encoding" not in answer.headers
    assert json.loads(raw)["outputs"]


def test_a_small_body_that_becomes_a_large_one_is_refused_and_the_connection_goes_on(served: Served) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    assert len(bomb) < LIMIT
    with httpx.Client(base_url=served.gateway.url, timeout=GUARD_SECONDS) as client:
        answer = client.post(INFER, content=bomb, headers={"content-encoding": "gzip"})
        assert answer.status_code == 413
        assert_tells(error_of(answer), f"limit {LIMIT} bytes decompressed")
        assert client.post(INFER, json=document(ROWS)).status_code == 200


@pytest.mark.parametrize(
    ("coding", "body", "status", "facts"),
    [
        ("br", b"{}", 415, "'br'"),
        ("gzip, gzip", b"{}", 415, "'gzip, gzip'"),
        ("gzip", b"{}", 400, "not gzip"),
        ("deflate", zlib.compress(b"{}")[:-1], 400, "ends deflate"),
    ],
)
def test_what_cannot_be_decompressed_is_refused(
    served: Served, coding: str, body: bytes, status: int, facts: str
) -> None:
    answer, raw = post(served.gateway.url + INFER, body, content_encoding=coding)
    assert answer.status_code == status
    assert_tells(json.loads(raw)["error"], facts)
    assert (answer.headers.get("accept-encoding") == "gzip, deflate") == (status == 415)
