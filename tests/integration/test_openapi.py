"""The OpenAPI documents that are served, held to what the servers do by schemathesis, and by what it finds in wrong ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.behind_gateway import Served, behind_gateway
from tests.integration.replica_process import ReplicaProcess, replica, save_linear

DOCUMENT = "/v2/openapi.json"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_linear(tmp_path_factory.mktemp("served") / "model.onnx")


@pytest.fixture(scope="module")
def alone(model: Path) -> Iterator[ReplicaProcess]:
    with replica(model) as started:
        yield started


@pytest.fixture(scope="module")
def served(model: Path) -> Iterator[Served]:
    # The searches below are one client, and faster than a gateway lets one client make mistakes.
    with behind_gateway(model, "--agent-requests-per-second", "1000000") as started:
        yield started


def search(document: dict[str, Any] | str, url: str, folder: Path, *arguments: str) -> tuple[bool, str]:
    """Whether schemathesis finds nothing wrong, and what it said. A document is one that is served, or given.

    Which valid requests a model takes is more than a schema can say (a shape and its data belong together), so that one that fits
    and is refused is no fault.
    """
    if isinstance(document, str):
        location = url + document
    else:
        path = folder / "document.json"
        path.write_text(json.dumps(document))
        location = str(path)
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", location, "--url", url, "--seed", "1", "--max-examples", "5",
        "--phases", "examples,coverage,fuzzing", "--exclude-checks", "positive_data_acceptance", "--continue-on-failure", *arguments,
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=folder)
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    return ended.returncode == 0, ended.stdout


def test_a_replicas_document_is_true(alone: ReplicaProcess, tmp_path: Path) -> None:
    clean, said = search(DOCUMENT, alone.url, tmp_path)
    assert clean, said


def test_its_example_is_answered_in_every_way_to_write_the_path(alone: ReplicaProcess) -> None:
    document = httpx.get(alone.url + DOCUMENT).json()
    example = document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"][
        "example"
    ]
    bases = [each["url"].format(namespace="default").rstrip("/") for each in document["servers"]]
    assert len(bases) == 2
    for base in bases:
        for path in ("/v2/models/tiny/infer", "/v2/models/tiny/versions/1/infer"):
            assert httpx.post(alone.url + base + path, json=example).json()["outputs"][0]["shape"] == [1, 10]
        assert httpx.get(alone.url + base + DOCUMENT).json() == document


def test_a_gateways_document_is_true_of_models_that_are_there_and_others(served: Served, tmp_path: Path) -> None:
    url = served.gateway.url
    document = httpx.get(url + DOCUMENT).json()
    # Else no request would find the one that is there. What is none of these is asked for, too, as what a schema forbids.
    for path in document["paths"].values():
        for parameter in path.get("parameters", ()):
            parameter["schema"] = {"enum": [{"model": "tiny", "version": "1"}[parameter["name"]]]}
    clean, said = search(document, url, tmp_path)
    assert clean, said
    assert httpx.get(url + "/default" + DOCUMENT).status_code == 200


def _claim(path: str, method: str = "get") -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        item = document["paths"].setdefault(path, {})
        item[method] = {"responses": {"200": {"description": "OK", "content": {"application/json": {}}}}}

    return change


def _schema(name: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["components"]["schemas"][name]["properties"][key] = value

    return change


def _type_of_answer(document: dict[str, Any]) -> None:
    content = document["paths"]["/v2/health/live"]["get"]["responses"]["200"]["content"]
    content["text/plain"] = content.pop("application/json")


WRONG: dict[str, tuple[str, Callable[[dict[str, Any]], None], str]] = {
    "a field of another type": ("GET /v2", _schema("server_metadata", "version", {"type": "integer"}), "schema"),
    "another value": ("GET /v2/models/{model}/ready", _schema("model_ready", "ready", {"const": False}), "schema"),
    "a path that is not there": ("GET /v2/nothing", _claim("/v2/nothing"), "Undocumented status code"),
    "a method that is not taken": ("GET /v2/repository/index", _claim("/v2/repository/index"), "405"),
    "a media type": ("GET /v2/health/live", _type_of_answer, "Content-Type"),
    "an input that is said to be refused": (
        "POST /v2/repository/index",
        _schema("repository_index_request", "ready", {"type": "string", "enum": ["yes"]}),
        "Schema-violating request accepted",
    ),
}


def test_what_a_document_has_wrong_is_found(alone: ReplicaProcess, tmp_path: Path) -> None:
    document = httpx.get(alone.url + DOCUMENT).json()
    for _, change, _ in WRONG.values():
        change(document)
    paths = {operation.split()[1] for operation, _, _ in WRONG.values()}
    clean, said = search(document, alone.url, tmp_path, *(word for path in paths for word in ("--include-path", path)))
    assert not clean, said
    # One part of the report for each operation, below its name in a line of underscores.
    _, *parts = re.split(r"^_{3,} (.+?) _{3,}$", said, flags=re.MULTILINE)
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    for title, (operation, _, words) in WRONG.items():
        assert words in found.get(operation, ""), (title, said)
