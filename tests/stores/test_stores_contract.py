"""One contract for every store: a folder, and a real S3 server."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.stores.kits import contents
from tests.telling import telling

from penstock.api.conditions import Reason
from penstock.errors import Invalid, Unavailable
from penstock.serving.manifest import DataType, ModelFile, ModelManifest, Signature, TensorSpec
from penstock_runtime.storage import Store, fetch


@pytest.fixture(params=["a folder", "S3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "S3":
        return str(request.getfixturevalue("s3_store"))
    return (tmp_path / "store with a space").as_uri()


def model(path: Path, body: bytes = b"weights") -> Path:
    """A model folder with a manifest, a report in a folder of its own, and a signature."""
    (path / "report").mkdir(parents=True)
    (path / "model.onnx").write_bytes(body)
    (path / "report" / "report.json").write_text("{}")
    (path / "model.sig").write_text("signed")
    spec = TensorSpec(name="x", datatype=DataType.FP32, shape=(-1,))
    files = {"model.onnx": ModelFile(sha256=hashlib.sha256(body).hexdigest(), size_bytes=len(body))}
    manifest = ModelManifest(name="m", signature=Signature(inputs=(spec,), outputs=(spec,)), files=files)
    (path / "manifest.json").write_text(manifest.model_dump_json())
    return path


def test_what_is_written_is_read_and_what_is_not_there_is_none(root: str) -> None:
    store = Store(root)
    assert store.read("runs/1/progress.json") is None
    assert not store.exists("runs/1/progress.json")
    store.write("runs/1/progress.json", b"one")
    store.write("runs/1/progress.json", b"two")
    assert store.read("runs/1/progress.json") == b"two"
    assert store.exists("runs/1/progress.json")
    assert store.exists("runs/1")
    assert store.uri("runs/1") == f"{root}/runs/1"


@pytest.mark.parametrize("body", [b"", b"12345678", b"123456789"], ids=["empty", "just so long", "longer"])
def test_no_more_is_read_than_is_allowed(root: str, body: bytes) -> None:
    store = Store(root)
    assert store.read("runs/1/result.json", 8) is None
    store.write("runs/1/result.json", body)
    if len(body) <= 8:
        assert store.read("runs/1/result.json", 8) == body
        return
    with pytest.raises(Invalid, match=telling("8 bytes")):
        store.read("runs/1/result.json", 8)


def test_it_is_told_what_credentials_may_do_and_the_attempt_leaves_nothing(root: str) -> None:
    store = Store(root)
    store.write("vision/a", b"a")
    assert store.probe_permissions(".scope") == ("list", "write")
    assert not store.exists(".scope")


def test_a_folder_comes_back_as_it_was_put(root: str, tmp_path: Path) -> None:
    local = model(tmp_path / "local")
    uri = Store(root).put_folder(local, "artifacts/sha256-1")
    fetched = fetch(uri, tmp_path / "cache")
    assert contents(fetched) == contents(local)
    assert fetch(uri, tmp_path / "cache") == fetched


def test_putting_the_same_again_changes_nothing_and_another_replaces_it(root: str, tmp_path: Path) -> None:
    store = Store(root)
    uri = store.put_folder(model(tmp_path / "a"), "artifacts/1")
    assert store.put_folder(tmp_path / "a", "artifacts/1") == uri
    store.put_folder(model(tmp_path / "b", b"other weights"), "artifacts/1")
    assert contents(fetch(uri, tmp_path / "cache")) == contents(tmp_path / "b")


def test_a_lone_file_is_fetched(root: str, tmp_path: Path) -> None:
    store = Store(root)
    store.write("models/model.onnx", b"onnx")
    assert fetch(store.uri("models/model.onnx"), tmp_path / "cache").read_bytes() == b"onnx"


def test_what_is_not_there_is_not_found(root: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=telling("nothing missing")) as caught:
        fetch(f"{root}/missing", tmp_path / "cache")
    assert caught.value.reason == Reason.MODEL_NOT_FOUND


@pytest.mark.parametrize("path", ["../out", "/absolute", "", "a/../../b"])
def test_a_path_out_of_the_store_is_refused(root: str, path: str) -> None:
    with pytest.raises(Invalid):
        Store(root).write(path, b"")


def test_a_changed_file_in_s3_is_refused_naming_it(s3_store: str, tmp_path: Path) -> None:
    store = Store(s3_store)
    uri = store.put_folder(model(tmp_path / "local"), "m")
    store.write("m/model.onnx", b"changed")
    with pytest.raises(
        Invalid, match=telling("m/model.onnx manifest.json", hashlib.sha256(b"changed").hexdigest())
    ) as caught:
        fetch(uri, tmp_path / "cache")
    assert caught.value.reason == Reason.DIGEST_MISMATCH
    assert [each.name for each in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_broken_copy_in_the_cache_is_fetched_again(s3_store: str, tmp_path: Path) -> None:
    uri = Store(s3_store).put_folder(model(tmp_path / "local"), "m")
    fetched = fetch(uri, tmp_path / "cache")
    (fetched / "model.onnx").write_bytes(b"rotten!")
    assert contents(fetch(uri, tmp_path / "cache")) == contents(tmp_path / "local")


def test_many_may_fetch_the_same_at_once(s3_store: str, tmp_path: Path) -> None:
    uri = Store(s3_store).put_folder(model(tmp_path / "local", b"w" * 100_000), "m")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(uri, tmp_path / "cache"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 6
    assert len(set(found)) == 1
    assert contents(found[0]) == contents(tmp_path / "local")
    assert [each.name for each in (tmp_path / "cache").glob("version-*") if each.is_dir()] == [found[0].parent.name]


def fetched(uri: str, cache: Path) -> None:
    fetch(uri, cache)


def read(uri: str, cache: Path) -> None:
    assert cache
    Store(uri).read("a")


def written(uri: str, cache: Path) -> None:
    assert cache
    Store(uri).write("a", b"")


@pytest.mark.parametrize("act", [fetched, read, written], ids=lambda act: act.__name__)
@pytest.mark.usefixtures("s3_store")
def test_a_wrong_secret_is_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[str, Path], None]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(Invalid, match=telling("credentials")) as caught:
        act("s3://models/x", tmp_path / "cache")
    assert caught.value.reason == Reason.STORAGE_DENIED


@pytest.mark.parametrize("act", [fetched, read, written], ids=lambda act: act.__name__)
@pytest.mark.usefixtures("s3_store")
def test_a_missing_bucket_is_not_found(tmp_path: Path, act: Callable[[str, Path], None]) -> None:
    with pytest.raises(Invalid, match=telling("nothing bucket")) as caught:
        act("s3://no-such-bucket/x", tmp_path / "cache")
    assert caught.value.reason == Reason.MODEL_NOT_FOUND


@pytest.mark.usefixtures("s3_store")
def test_a_server_that_is_not_up_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=telling("up")) as caught:
        Store("s3://models/x").read("a")
    assert caught.value.reason == Reason.STORAGE_UNREACHABLE


@pytest.mark.parametrize(
    ("uri", "facts"),
    [
        ("s3://key:secret@models/x", "credentials URI"),
        ("floppy://models/x", "floppy:// s3://"),
        ("models/x", "write file:// absolute path"),
        ("file://host/models", "write file:// absolute path"),
    ],
)
def test_a_uri_that_cannot_be_used_says_what_to_write(uri: str, facts: str) -> None:
    with pytest.raises(Invalid, match=telling(facts)) as caught:
        Store(uri)
    assert caught.value.reason == Reason.UNSUPPORTED_STORAGE
    assert "secret" not in caught.value.message
