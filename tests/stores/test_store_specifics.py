"""What only some stores do: web servers that lack things, layouts of registries, checksums of the Hub."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.stores.hub_standin import TOKEN, HubStandIn
from tests.stores.kits import contents, fetch, model_files, model_pack
from tests.stores.registry_server import PASSWORD, REPOSITORY, USER, Layer, Login, Registry, registry_server, tar
from tests.stores.web_server import FolderServer, serving
from tests.telling import assert_tells, telling

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock_runtime import downloading
from penstock_runtime.sources.hub import parse_address
from penstock_runtime.sources.registry import reference

IMAGE_LAYER = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "_FIRST_DELAY_SECONDS", 0.01)


def refusal(uri: str, cache: Path, digest: str | None = None) -> tuple[str, str]:
    with pytest.raises(Invalid) as caught:
        fetch(uri, cache, digest)
    return caught.value.reason, caught.value.message


# --- A web server ---


@pytest.fixture
def web(tmp_path: Path) -> Iterator[FolderServer]:
    (tmp_path / "www").mkdir()
    with serving(FolderServer(tmp_path / "www")) as server:
        yield server


def published(web: FolderServer, files: Mapping[str, bytes]) -> str:
    for name, content in files.items():
        (web.root / name).parent.mkdir(parents=True, exist_ok=True)
        (web.root / name).write_bytes(content)
    return f"http://127.0.0.1:{web.server_port}"


@pytest.mark.parametrize(
    "lacking", [{"ranges": False}, {"heads": False}, {"stamps": False}, {"unwell": 3}],
    ids=["no ranges", "no HEAD", "no version of its files", "three answers of 503 first"],
)  # fmt: skip
def test_a_web_server_may_lack_much(web: FolderServer, tmp_path: Path, lacking: dict[str, Any]) -> None:
    files = model_files(b"w" * 100_000)
    uri = published(web, {f"m/{name}": content for name, content in files.items()})
    for name, value in lacking.items():
        setattr(web, name, value)
    assert contents(fetch(f"{uri}/m", tmp_path / "cache")) == files


def test_a_lone_file_is_held_against_the_digest_of_the_deployment(web: FolderServer, tmp_path: Path) -> None:
    uri = published(web, {"model.onnx": b"onnx"}) + "/model.onnx"
    reason, message = refusal(uri, tmp_path / "cache", "sha256:" + "0" * 64)
    assert reason == Reason.DIGEST_MISMATCH
    assert_tells(message, "0" * 64, hashlib.sha256(b"onnx").hexdigest(), "digest")


def test_a_file_that_a_server_gives_no_version_of_is_fetched_each_time(web: FolderServer, tmp_path: Path) -> None:
    web.stamps = False
    uri = published(web, {"model.onnx": b"old"}) + "/model.onnx"
    assert fetch(uri, tmp_path / "cache").read_bytes() == b"old"
    published(web, {"model.onnx": b"new"})
    assert fetch(uri, tmp_path / "cache").read_bytes() == b"new"


# --- A registry ---


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry_server(tmp_path_factory.mktemp("registry")) as found:
        yield found


def at(registry: Registry, tag: str) -> str:
    return f"oci://{registry.meddler.address}/{REPOSITORY}:{tag}"


@pytest.mark.parametrize(
    ("layers", "files"),
    [
        (
            [Layer(tar({"model.onnx": b"m"}, compressed=False), "application/vnd.cncf.model.weight.v1.tar", {})],
            {"model.onnx": b"m"},
        ),
        (
            [Layer(tar({"model.onnx": b"m"}), "application/vnd.cnai.model.weight.v1.tar+gzip", {})],
            {"model.onnx": b"m"},
        ),
        ([Layer(b"m", IMAGE_LAYER, {"org.opencontainers.image.title": "model.onnx"})], {"model.onnx": b"m"}),
        (
            [
                Layer(tar({"models/a": b"1", "models/b": b"1"}), f"{IMAGE_LAYER}+gzip", {}),
                Layer(tar({"models/.wh.a": b"", "models/b": b"2"}), "application/vnd.docker.image.rootfs.diff.tar.gzip", {}),
            ],
            {"b": b"2"},
        ),
    ],
    ids=["a ModelPack in tar", "one of before the CNCF", "a file that oras pushed", "an image whose upper layer changes files"],
)  # fmt: skip
def test_models_are_found_in_each_layout(
    registry: Registry, tmp_path: Path, layers: list[Layer], files: dict[str, bytes]
) -> None:
    registry.push(REPOSITORY, "layout", layers)
    assert contents(fetch(at(registry, "layout"), tmp_path / "cache")) == files


def test_of_an_index_the_machines_own_manifest_is_taken(registry: Registry, tmp_path: Path) -> None:
    mine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    entries = []
    for architecture in ("s390x", mine):
        digest = registry.push(REPOSITORY, architecture, model_pack({"for": architecture.encode()}))
        entries.append(
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
             "platform": {"os": "linux", "architecture": architecture}}
        )  # fmt: skip
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
    registry.put_manifest(REPOSITORY, "index", index)
    assert contents(fetch(at(registry, "index"), tmp_path / "cache")) == {"for": mine.encode()}


def test_a_digest_pins_an_artifact_whose_tag_moves(registry: Registry, tmp_path: Path) -> None:
    digest = registry.push(REPOSITORY, "moving", model_pack({"model.onnx": b"old"}))
    registry.push(REPOSITORY, "moving", model_pack({"model.onnx": b"new"}))
    pinned = f"oci://{registry.meddler.address}/{REPOSITORY}@{digest}"
    assert contents(fetch(pinned, tmp_path / "cache")) == {"model.onnx": b"old"}
    assert contents(fetch(at(registry, "moving"), tmp_path / "cache")) == {"model.onnx": b"new"}


@pytest.mark.parametrize(
    ("layers", "facts"),
    [
        ([Layer(b"{}", "application/vnd.example+json", {})], "layers 'application/vnd.example+json'"),
        (model_pack({"../escaped": b"x"}), "../escaped not path"),
        (
            [Layer(tar({"../escaped": b"x"}), "application/vnd.cncf.model.weight.v1.tar+gzip", {})],
            "../escaped out folder",
        ),
    ],
    ids=["no model", "an annotation that leads out of the folder", "an archive that does"],
)
def test_artifacts_that_are_no_models_are_refused(
    registry: Registry, tmp_path: Path, layers: list[Layer], facts: str
) -> None:
    registry.push(REPOSITORY, "bad", layers)
    assert_tells(refusal(at(registry, "bad"), tmp_path / "cache")[1], facts)


def test_a_docker_config_opens_a_registry_and_its_programs_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry_server(tmp_path, Login.BASIC) as closed:
        closed.push(REPOSITORY, "1", model_pack({"model.onnx": b"m"}))
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        config = tmp_path / ".dockerconfigjson"
        monkeypatch.setenv("OCI_DOCKER_CONFIG", str(config))
        config.write_text(
            json.dumps({"auths": {closed.meddler.address: {"auth": pair}}, "credsStore": "no-such-program"})
        )
        assert contents(fetch(at(closed, "1"), tmp_path / "cache")) == {"model.onnx": b"m"}
        config.write_text(json.dumps({"auths": {"elsewhere.example.com": {"auth": pair}}}))
        assert refusal(at(closed, "1"), tmp_path / "cache")[0] == Reason.STORAGE_DENIED


@pytest.mark.parametrize(
    "uri",
    [
        "oci://registry/digits",
        "oci://registry",
        "oci://registry/Upper:1",
        "oci://registry/digits@sha256:12",
        "oci://r/d:1?x",
    ],
)
def test_a_reference_that_names_no_artifact_says_what_to_write(uri: str) -> None:
    with pytest.raises(Invalid, match=telling("oci://REGISTRY/REPOSITORY:TAG")):
        reference(uri)


# --- The Hub ---


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    with serving(HubStandIn(tmp_path / "hub")) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield server


def pushed(hub: HubStandIn, repo: str, revision: str, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = hub.root / repo / revision / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize(("size", "algorithm"), [(10, "git object id"), (5000, "SHA-256")], ids=["small", "large"])
def test_files_of_the_hub_are_held_against_what_it_says_of_them(
    hub: HubStandIn, tmp_path: Path, size: int, algorithm: str
) -> None:
    pushed(hub, "org/m", "main", {"model.onnx": b"m" * size})
    hub.damaged["model.onnx"] = b"x" * size
    reason, message = refusal("hf://org/m", tmp_path / "cache")
    assert reason == Reason.DIGEST_MISMATCH
    assert_tells(message, "model.onnx", algorithm, "Hub")


def test_a_folder_at_a_revision_of_a_private_repository(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(hub, "private/m", "v1", {"onnx/model.onnx": b"one", "onnx/a/b": b"2", "README.md": b"-"})
    pushed(hub, "private/m", "main", {"onnx/model.onnx": b"two"})
    assert refusal("hf://private/m@v1/onnx", tmp_path / "cache")[0] == Reason.STORAGE_DENIED
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert contents(fetch("hf://private/m@v1/onnx", tmp_path / "cache")) == {"model.onnx": b"one", "a/b": b"2"}
    assert fetch("hf://private/m/onnx/model.onnx", tmp_path / "cache").read_bytes() == b"two"


@pytest.mark.parametrize("uri", ["hf://org/m@v2", "hf://org/m/missing", "hf://org/m/missing.onnx"])
def test_what_a_repository_does_not_have_is_not_found(hub: HubStandIn, tmp_path: Path, uri: str) -> None:
    pushed(hub, "org/m", "main", {"model.onnx": b"m"})
    assert refusal(uri, tmp_path / "cache")[0] == Reason.MODEL_NOT_FOUND


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("hf://org/repo", ("org/repo", "main", "")),
        ("hf://org/repo@refs%2Fpr%2F1/a/b.onnx", ("org/repo", "refs/pr/1", "a/b.onnx")),
        ("hf://org/repo/", ("org/repo", "main", "")),
    ],
)
def test_an_address_of_the_hub_has_three_parts(uri: str, parts: tuple[str, str, str]) -> None:
    found = parse_address(uri)
    assert (found.repo, found.revision, found.path) == parts


@pytest.mark.parametrize("uri", ["hf://repo", "hf://org/repo/../other", "hf://"])
def test_an_address_that_names_no_model_is_refused(uri: str) -> None:
    with pytest.raises(Invalid):
        parse_address(uri)
