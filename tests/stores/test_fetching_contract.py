"""What fetching a model does, the same for every kind of store. Each is a real server, or says what it stands for."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx.external_data_helper import set_external_data
from tests.stores.kits import KITS, Kit, WebKit, contents, fetch, kit, model_files
from tests.telling import assert_tells, telling

from penstock.api.conditions import Reason
from penstock.errors import Invalid, Unavailable
from penstock.serving.manifest import ModelFormat
from penstock.serving.versions import Wanted
from penstock_runtime import downloading
from penstock_runtime.digests import digest_of
from penstock_runtime.fetching import ModelCacheSettings, fetch_into_cache
from penstock_runtime.files import resolve_version

LARGE = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Kit]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(kit(name, tmp_path_factory.mktemp("store"))) for name in KITS}


@pytest.fixture(params=KITS)
def store(request: pytest.FixtureRequest, kits: dict[str, Kit], monkeypatch: pytest.MonkeyPatch) -> Kit:
    found = kits[request.param]
    use(found.environment, monkeypatch)
    # Pauses take no time here: ours, and those of Google's library.
    monkeypatch.setattr(downloading, "_FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setenv(
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false"
    )  # as the product has it, when it imports the library
    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=lambda _: asyncio.sleep(0.01)))
    found.meddler.behave()
    return found


def use(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def visible(cache: Path) -> list[str]:
    """What another process could take for a model, or trip over."""
    return sorted(each.name for each in cache.iterdir() if each.name != ".lock") if cache.exists() else []


def test_a_folder_comes_as_it_was_put(store: Kit, tmp_path: Path) -> None:
    files = model_files()
    assert contents(fetch(store.put(files), tmp_path / "cache")) == files


def test_the_same_files_have_the_same_place_wherever_they_were(store: Kit, tmp_path: Path) -> None:
    files = model_files(b"twice")
    first = fetch(store.put(files), tmp_path / "cache")
    store.meddler.sent_bytes = 0
    assert fetch(store.put(files), tmp_path / "cache") == first


def test_a_lone_file_comes_by_its_name(store: Kit, tmp_path: Path) -> None:
    if not store.lone:
        pytest.skip("an artifact of a registry is always a folder")
    path = fetch(f"{store.put({'model.onnx': b'onnx'})}/model.onnx", tmp_path / "cache")
    assert (path.name, path.read_bytes()) == ("model.onnx", b"onnx")


def test_a_file_that_is_not_what_the_manifest_says_is_refused_naming_all(store: Kit, tmp_path: Path) -> None:
    files = model_files(b"weights", says=b"WEIGHTS")
    if not store.checks_manifest:
        pytest.skip("an image's files are known once it is unpacked: the registry's digests stand for them")
    with pytest.raises(Invalid) as caught:
        fetch(store.put(files), tmp_path / "cache")
    assert caught.value.reason == Reason.DIGEST_MISMATCH
    expected = json.loads(files["manifest.json"])["files"]["model.onnx"]["sha256"]
    assert_tells(caught.value.message, "model.onnx", expected)
    assert "9a129038" in caught.value.message, "what was found"
    assert visible(tmp_path / "cache") == []


def test_what_was_damaged_on_its_way_is_refused(store: Kit, tmp_path: Path) -> None:
    uri = store.put(model_files(LARGE))
    store.meddler.damage(at=2_000_000)
    with pytest.raises(Invalid, match=r"(?i)expected .* (found|calculated)") as caught:
        fetch(uri, tmp_path / "cache")
    assert caught.value.reason == Reason.DIGEST_MISMATCH
    assert visible(tmp_path / "cache") == []


def test_what_is_not_there_is_not_found(store: Kit, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=telling("nothing", store.missing())) as caught:
        fetch(store.missing(), tmp_path / "cache")
    assert caught.value.reason == Reason.MODEL_NOT_FOUND


def test_wrong_credentials_are_denied(store: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, environment = store.denied()
    use(environment, monkeypatch)
    with pytest.raises(Invalid, match=telling("credentials model.credentialsSecretRef")) as caught:
        fetch(uri, tmp_path / "cache")
    assert caught.value.reason == Reason.STORAGE_DENIED


def test_a_server_that_is_not_up_is_unreachable(store: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, environment = store.unreachable()
    use(environment, monkeypatch)
    with pytest.raises(Unavailable, match=telling("up")) as caught:
        fetch(uri, tmp_path / "cache")
    assert caught.value.reason == Reason.STORAGE_UNREACHABLE


def test_a_download_that_breaks_off_goes_on_where_it_was(store: Kit, tmp_path: Path) -> None:
    files = model_files(LARGE)
    uri = store.put(files)
    store.meddler.sent_bytes = 0
    store.meddler.break_off(after=1_500_000, times=1)
    assert contents(fetch(uri, tmp_path / "cache")) == files
    assert store.meddler.broken == 1
    assert store.meddler.sent_bytes < 1.7 * len(LARGE)


def test_a_store_that_breaks_off_each_time_is_unreachable_and_nothing_is_visible(store: Kit, tmp_path: Path) -> None:
    uri = store.put(model_files(LARGE))
    store.meddler.break_off(after=100_000, times=1000)
    with pytest.raises(Unavailable) as caught:
        fetch(uri, tmp_path / "cache")
    store.meddler.behave()
    assert caught.value.reason == Reason.STORAGE_UNREACHABLE
    assert [each for each in visible(tmp_path / "cache") if not each.startswith(".fetching-")] in (
        [],
        visible_locks(tmp_path),
    )
    assert contents(fetch(uri, tmp_path / "cache"))["model.onnx"] == LARGE


def visible_locks(folder: Path) -> list[str]:
    return sorted(each.name for each in (folder / "cache").glob("*.lock") if each.name != ".lock")


def test_a_manifest_that_leads_out_of_its_folder_is_refused(store: Kit, tmp_path: Path) -> None:
    if not store.checks_manifest:
        pytest.skip("an image's manifest is read by who loads the model")
    with pytest.raises(Invalid, match=telling("../../escaped outside folder")) as caught:
        fetch(store.put(model_files(more={"../../escaped": "0" * 64})), tmp_path / "cache")
    assert caught.value.reason == Reason.MODEL_INVALID
    assert visible(tmp_path / "cache") == []


def test_what_was_replaced_in_the_store_is_fetched_anew(store: Kit, tmp_path: Path) -> None:
    uri = store.put(model_files(b"old"))
    old = fetch(uri, tmp_path / "cache")
    store.put(model_files(b"new"), replacing=uri)
    assert contents(fetch(uri, tmp_path / "cache"))["model.onnx"] == b"new"
    assert contents(old)["model.onnx"] == b"old"


def test_of_two_processes_that_start_at_once_one_downloads(store: Kit, tmp_path: Path) -> None:
    uri = store.put(model_files(LARGE))
    store.meddler.sent_bytes = 0
    program = (
        "import os, sys; from penstock_runtime.fetching import fetch_in_child\n"
        "held = fetch_in_child(sys.argv[1], os.environ); print(held.path)"
    )
    environment = {**os.environ, "PENSTOCK_MODEL_CACHE": str(tmp_path / "cache")}
    both = [
        subprocess.Popen([sys.executable, "-c", program, uri], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    paths = {each.communicate(timeout=60)[0].strip() for each in both}
    assert len(paths) == 1
    assert contents(Path(paths.pop()))["model.onnx"] == LARGE
    assert store.meddler.sent_bytes < 1.5 * len(LARGE)


def with_weights(number: float, *locations: str) -> dict[str, bytes]:
    """`model.onnx` whose weights lie in these files beside it. It is the same whatever the number."""
    tensors = [numpy_helper.from_array(np.full(4, number, np.float32), f"w{each}") for each in range(len(locations))]
    files = {}
    for tensor, location in zip(tensors, locations, strict=True):
        files[location] = tensor.raw_data
        set_external_data(tensor, location)
        tensor.ClearField("raw_data")
    made = helper.make_model(helper.make_graph([], "g", [], [], tensors))
    return {"model.onnx": made.SerializeToString(), **files}


def test_a_lone_onnx_file_brings_the_weights_that_it_names(store: Kit, tmp_path: Path) -> None:
    if not store.lone:
        pytest.skip("an artifact of a registry is always a folder")
    files = with_weights(1, "weights one.bin", "data/two.bin")
    uri = store.put({**files, "other.bin": b"not named"})
    path = fetch(f"{uri}/model.onnx", tmp_path / "cache")
    assert (path.name, contents(path.parent)) == ("model.onnx", files)


def test_other_weights_beside_the_same_onnx_file_are_fetched_anew(store: Kit, tmp_path: Path) -> None:
    if not store.lone:
        pytest.skip("an artifact of a registry is always a folder")
    old, new = with_weights(1, "w.bin"), with_weights(2, "w.bin")
    uri = store.put(old)
    first = fetch(f"{uri}/model.onnx", tmp_path / "cache")
    store.put(new, replacing=uri)
    assert old["model.onnx"] == new["model.onnx"]
    assert contents(fetch(f"{uri}/model.onnx", tmp_path / "cache").parent) == new
    assert contents(first.parent) == old


def test_weights_that_are_not_there_are_named(store: Kit, tmp_path: Path) -> None:
    if not store.lone:
        pytest.skip("an artifact of a registry is always a folder")
    files = with_weights(1, "w.bin", "v.bin")
    del files["v.bin"]
    uri = store.put(files)
    with pytest.raises(Invalid, match=telling(f"{uri}/v.bin not there model.onnx")) as caught:
        fetch(f"{uri}/model.onnx", tmp_path / "cache")
    assert caught.value.reason == Reason.MODEL_NOT_FOUND


def test_a_digest_may_be_of_a_lone_file_with_its_weights(store: Kit, tmp_path: Path) -> None:
    if not store.lone:
        pytest.skip("an artifact of a registry is always a folder")
    files = with_weights(1, "w.bin")
    uri = f"{store.put(files)}/model.onnx"
    whole = digest_of(fetch(uri, tmp_path / "first"), ModelFormat.ONNX).value
    assert contents(fetch(uri, tmp_path / "cache", whole).parent) == files
    uri = f"{store.put({'model.onnx': b''})}/model.onnx"
    with pytest.raises(Invalid, match=telling("model.onnx", whole.removeprefix("sha256:"))) as caught:
        fetch(uri, tmp_path / "cache", whole)
    assert caught.value.reason == Reason.DIGEST_MISMATCH


def test_openvinos_weights_come_with_its_lone_file(store: Kit, tmp_path: Path) -> None:
    if not store.lone:
        pytest.skip("an artifact of a registry is always a folder")
    files = {"model.xml": b"<net/>", "model.bin": b"weights"}
    assert contents(fetch(f"{store.put(files)}/model.xml", tmp_path / "cache").parent) == files
    alone = fetch(f"{store.put({'model.xml': b'<net/>'})}/model.xml", tmp_path / "cache")
    assert contents(alone.parent) == {"model.xml": b"<net/>"}


def versions(*names: str) -> dict[str, bytes]:
    return {f"{name}/{path}": content for name in names for path, content in model_files(name.encode()).items()}


def of_version(uri: str, cache: Path, version: str) -> Path:
    wanted = Wanted(version=version, suffixes=(".onnx",))
    held, _ = fetch_into_cache(uri, ModelCacheSettings(cache), wanted=wanted)
    with held:
        return resolve_version(held.path, wanted)


def test_of_a_folder_of_versions_the_one_that_is_wanted_is_fetched(store: Kit, tmp_path: Path) -> None:
    path = of_version(store.put(versions("1", "2", "10")), tmp_path / "cache", "2")
    assert contents(path) == model_files(b"2")
    if store.checks_manifest:
        assert len(list((tmp_path / "cache").rglob("model.onnx"))) == 1


def test_a_version_that_is_not_there_is_refused_with_those_that_are(store: Kit, tmp_path: Path) -> None:
    if isinstance(store, WebKit):
        pytest.skip("a web server lists nothing")
    with pytest.raises(Invalid, match=telling("version '3' 1, 2, 10")) as caught:
        of_version(store.put(versions("1", "2", "10")), tmp_path / "cache", "3")
    assert caught.value.reason == Reason.MODEL_NOT_FOUND


def test_a_folder_that_is_a_model_itself_has_no_versions(store: Kit, tmp_path: Path) -> None:
    files = {**model_files(), "1/model.onnx": b"a part of it"}
    if isinstance(store, WebKit):
        files.pop("1/model.onnx")
    assert contents(of_version(store.put(files), tmp_path / "cache", "1")) == files
