"""What is fetched without checksums is of one version, whatever happens to it meanwhile, and whatever an earlier fetch left."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.stores.kits import Kit, WebKit, kit
from tests.telling import telling

from penstock.api.conditions import Reason
from penstock.errors import Unavailable
from penstock_runtime import downloading
from penstock_runtime.fetching import ModelCacheSettings, fetch_into_cache
from penstock_runtime.sources import objects, open_source
from penstock_runtime.sources.manifests import with_digest
from penstock_runtime.sources.source import CHUNK_BYTES

STORES = ("S3", "Google Cloud Storage", "a web server")
"""Those that tell no checksums of their own."""
OLD, NEW = (letter * 3_000_000 for letter in (b"o", b"n"))
NAME = "model.onnx"


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Kit]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(kit(name, tmp_path_factory.mktemp("store"))) for name in STORES}


def prepared(store: Kit, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """Its environment, no pauses, and files in three pieces."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(downloading, "_FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(objects, "_PIECE_BYTES", CHUNK_BYTES)
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=lambda _: asyncio.sleep(0.01)))
    store.meddler.behave()
    return store


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, kits: dict[str, Kit], monkeypatch: pytest.MonkeyPatch) -> Kit:
    return prepared(kits[request.param], monkeypatch)


@pytest.fixture
def web(kits: dict[str, Kit], monkeypatch: pytest.MonkeyPatch) -> Iterator[WebKit]:
    found = prepared(kits["a web server"], monkeypatch)
    assert isinstance(found, WebKit)
    yield found
    found.server.stamps = found.server.lengths = True
    found.server.dates = False


def fetch(uri: str, cache: Path, digest: str | None = None) -> bytes:
    held, found = fetch_into_cache(uri, ModelCacheSettings(cache), digest)
    with held:
        return (held.path / (found.lone or NAME)).read_bytes()


def after(monkeypatch: pytest.MonkeyPatch, acts: Mapping[int, Callable[[], Any]]) -> None:
    """Do something once so many pieces were stored."""
    stored, put = 0, downloading._put

    def counted(*arguments: Any) -> None:
        nonlocal stored
        put(*arguments)
        stored += 1
        acts.get(stored, lambda: None)()

    monkeypatch.setattr(downloading, "_put", counted)


def left_by_a_killed_fetch(cache: Path, uri: str, content: bytes, digest: str | None = None) -> None:
    """What is there when the process was killed after it had stored so much."""
    source = open_source(uri)
    key = with_digest(source.listing(), digest).key(source.uri)
    (cache / f".fetching-{key}" / "model").mkdir(parents=True)
    (cache / f".fetching-{key}" / "model" / NAME).write_bytes(content)


def dated(web: WebKit, folder: str, when: float) -> None:
    path = web.server.root / folder.rsplit("/", 1)[-1] / NAME
    os.utime(path, (when, when))


def left_over(cache: Path) -> list[str]:
    return [each.name for each in cache.iterdir() if each.name != ".lock"]


def test_a_model_that_was_changed_and_changed_back_is_not_stored_as_a_mixture(
    store: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.put({NAME: OLD})
    store.meddler.break_off(after=1_500_000, times=1)
    after(monkeypatch, {1: lambda: store.put({NAME: NEW}, replacing=folder)})
    with pytest.raises(Unavailable, match=telling(NAME, "changed fetched")) as caught:
        fetch(f"{folder}/{NAME}", tmp_path)
    assert caught.value.reason == Reason.STORAGE_UNREACHABLE
    assert left_over(tmp_path) == []
    store.put({NAME: OLD}, replacing=folder)
    assert fetch(f"{folder}/{NAME}", tmp_path) == OLD


def test_a_model_that_is_changed_for_a_moment_is_not_stored_as_a_mixture(
    store: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.put({NAME: OLD})
    store.meddler.break_off(after=1_500_000, times=1)
    after(
        monkeypatch,
        {
            1: lambda: store.put({NAME: NEW}, replacing=folder),
            3: lambda: store.put({NAME: OLD}, replacing=folder),
        },
    )
    with pytest.raises(Unavailable, match=telling(NAME, "changed fetched")):
        fetch(f"{folder}/{NAME}", tmp_path)


@pytest.mark.parametrize("left", [NEW, OLD[:CHUNK_BYTES] + NEW[CHUNK_BYTES:], NEW[:CHUNK_BYTES]])
def test_what_a_killed_fetch_left_is_not_believed_without_a_checksum(store: Kit, tmp_path: Path, left: bytes) -> None:
    uri = f"{store.put({NAME: OLD})}/{NAME}"
    left_by_a_killed_fetch(tmp_path, uri, left)
    assert fetch(uri, tmp_path) == OLD


def test_what_a_killed_fetch_left_is_gone_on_with_where_a_digest_is_known(web: WebKit, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    uri = f"{web.put({NAME: content})}/{NAME}"
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    left_by_a_killed_fetch(tmp_path, uri, content[:2_000_000], digest)
    web.meddler.sent_bytes = 0
    assert fetch(uri, tmp_path, digest) == content
    assert web.meddler.sent_bytes < 1_500_000


@pytest.mark.parametrize("digest", [f"sha256:{hashlib.sha256(OLD).hexdigest()}", None], ids=["a digest", "no digest"])
@pytest.mark.parametrize("left", [OLD, OLD[:2_000_000], OLD + b"more"], ids=["all", "a part", "more"])
def test_a_file_whose_size_no_one_tells_is_completed_after_a_killed_fetch(
    web: WebKit, tmp_path: Path, digest: str | None, left: bytes
) -> None:
    web.server.lengths = False
    uri = f"{web.put({NAME: OLD})}/{NAME}"
    left_by_a_killed_fetch(tmp_path, uri, left, digest)
    assert fetch(uri, tmp_path, digest) == OLD


def broken_off(web: WebKit, monkeypatch: pytest.MonkeyPatch, then: bytes) -> str:
    """A file that no one tells the version of, whose connection breaks, and what is there then."""
    web.server.stamps = web.server.lengths = False
    folder = web.put({NAME: OLD})
    web.meddler.break_off(after=1_500_000, times=1)
    after(monkeypatch, {1: lambda: web.put({NAME: then}, replacing=folder)})
    return f"{folder}/{NAME}"


def test_a_file_without_a_version_is_gone_on_with_where_the_same_comes_again(
    web: WebKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fetch(broken_off(web, monkeypatch, OLD), tmp_path) == OLD
    assert web.meddler.broken == 1


@pytest.mark.parametrize("then", [NEW, OLD[:500_000]], ids=["another", "a shorter one"])
def test_a_file_without_a_version_is_not_gone_on_with_where_another_comes(
    web: WebKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: bytes
) -> None:
    with pytest.raises(Unavailable, match=telling(NAME, "changed fetched")):
        fetch(broken_off(web, monkeypatch, then), tmp_path)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("changed", [False, True], ids=["the same date", "another date"])
def test_a_file_that_has_a_date_alone_is_gone_on_with_where_that_is_the_same(
    web: WebKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, changed: bool
) -> None:
    web.server.stamps, web.server.dates = False, True
    folder = web.put({NAME: OLD})
    dated(web, folder, 1_000_000)

    def change() -> None:
        web.put({NAME: NEW if changed else OLD}, replacing=folder)
        dated(web, folder, 2_000_000 if changed else 1_000_000)

    web.meddler.break_off(after=1_500_000, times=1)
    after(monkeypatch, {1: change})
    if changed:
        with pytest.raises(Unavailable, match=telling(NAME, "changed fetched")):
            fetch(f"{folder}/{NAME}", tmp_path)
    else:
        assert fetch(f"{folder}/{NAME}", tmp_path) == OLD
        assert web.meddler.sent_bytes < 1.7 * len(OLD)
