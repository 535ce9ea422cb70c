"""The node's cache of models: one download, a bound, and what a killed process leaves."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.telling import assert_tells, telling

from penstock.api.conditions import Reason
from penstock.errors import Invalid, Unavailable
from penstock.serving.manifest import ModelFile
from penstock_runtime.downloading import Room, _put
from penstock_runtime.files import describe_folder
from penstock_runtime.model_cache import HeldModel, ModelCache

MIB = 2**20


def filled(size: int = MIB, *, told: list[str] | None = None) -> Callable[[Path, Room], dict[str, ModelFile]]:
    """Writes a model of a size."""

    def fill(folder: Path, room: Room) -> dict[str, ModelFile]:
        if told is not None:
            told.append("filled")
        room.claim(size)
        (folder / "model.onnx").write_bytes(b"m" * size)
        return describe_folder(folder)

    return fill


def put(cache: ModelCache, key: str, size: int = MIB) -> HeldModel:
    return cache.get(key, f"s3://models/{key}", size, filled(size))


def models(folder: Path) -> list[str]:
    return sorted(each.parent.name for each in folder.glob("*/record.json"))


def left_over(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.name.startswith((".fetching", ".removed")))


def used_at(folder: Path, key: str, when: float) -> None:
    os.utime(folder / f"{key}.lock", (when, when))


def test_a_model_that_is_there_is_not_filled_again(tmp_path: Path) -> None:
    told: list[str] = []
    for _ in range(3):
        with ModelCache(tmp_path).get("a", "s3://m/a", MIB, filled(told=told)) as held:
            assert (held.path / "model.onnx").stat().st_size == MIB
    assert told == ["filled"]


def test_the_least_recently_used_go_when_the_bound_is_reached(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, max_bytes=3 * MIB)
    for age, key in ((30, "b"), (40, "a"), (10, "c")):
        put(cache, key).close()
        used_at(tmp_path, key, time.time() - age)
    put(cache, "d").close()
    assert models(tmp_path) == ["b", "c", "d"]
    assert cache.used_bytes() == 3 * MIB


def test_a_model_in_use_stays_even_if_it_was_used_first(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, max_bytes=2 * MIB)
    in_use = put(cache, "a")
    used_at(tmp_path, "a", 0)
    put(cache, "b").close()
    put(cache, "c").close()
    assert models(tmp_path) == ["a", "c"]
    in_use.close()
    used_at(tmp_path, "a", 0)
    put(cache, "d").close()
    assert models(tmp_path) == ["c", "d"]


def test_a_model_for_which_there_is_no_room_is_refused_with_the_figures(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, max_bytes=2 * MIB)
    with (
        put(cache, "a"),
        pytest.raises(Unavailable, match=telling("1.5 MiB in use 1.0")) as caught,
    ):
        put(cache, "b", MIB + MIB // 2)
    assert caught.value.reason == Reason.CACHE_UNAVAILABLE
    assert "cache.maxBytes" in caught.value.message
    assert (models(tmp_path), left_over(tmp_path)) == (["a"], [])


def test_a_model_of_unknown_size_that_grows_past_the_bound_is_refused(tmp_path: Path) -> None:
    def endless(folder: Path, room: Room) -> dict[str, ModelFile]:
        with (folder / "model.onnx").open("wb") as out:
            while True:
                room.claim(MIB)
                out.write(b"m" * MIB)

    with pytest.raises(Unavailable) as caught:
        ModelCache(tmp_path, max_bytes=4 * MIB).get("a", "https://m/a", None, endless)
    assert caught.value.reason == Reason.CACHE_UNAVAILABLE
    assert left_over(tmp_path) == []


def test_a_model_that_was_changed_is_filled_again_and_who_serves_it_keeps_its_own(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path)
    serving = put(cache, "a")
    opened = (serving.path / "model.onnx").open("rb")
    (serving.path / "model.onnx").write_bytes(b"x" * MIB)
    with put(cache, "a") as again:
        assert (again.path / "model.onnx").read_bytes() == b"m" * MIB
    assert opened.read(1) == b"x"
    assert left_over(tmp_path) == []


def test_a_refused_model_leaves_nothing(tmp_path: Path) -> None:
    def refused(folder: Path, room: Room) -> dict[str, ModelFile]:
        room.claim(1)
        (folder / "model.onnx").write_bytes(b"wrong")
        raise Invalid(Reason.DIGEST_MISMATCH, "wrong")

    with pytest.raises(Invalid):
        ModelCache(tmp_path).get("a", "s3://m/a", 1, refused)
    assert [each.name for each in tmp_path.iterdir()] == [".lock"]


def fill_slowly(folder: str, key: str, count: str, seconds: float = 0.5) -> None:
    """In a process of its own: fill, counting, and hold."""

    def fill(staging: Path, room: Room) -> dict[str, ModelFile]:
        with Path(count).open("a") as file:
            file.write("filled\n")
        (staging / "model.onnx").write_bytes(b"half")
        time.sleep(seconds)
        return filled()(staging, room)

    ModelCache(Path(folder)).get(key, "s3://m/a", MIB, fill)


def test_of_many_processes_at_once_one_fills(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    arguments = (str(tmp_path / "cache"), "a", str(tmp_path / "count"))
    processes = [context.Process(target=fill_slowly, args=arguments) for _ in range(6)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(60)
    assert [each.exitcode for each in processes] == [0] * 6
    assert (tmp_path / "count").read_text() == "filled\n"


def test_a_killed_download_is_gone_on_with_and_that_of_another_model_removed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for key in ("a", "b"):
        process = context.Process(target=fill_slowly, args=(str(tmp_path), key, os.devnull, 60.0))
        process.start()
        half = tmp_path / f".fetching-{key}" / "model" / "model.onnx"
        while not (half.exists() and half.stat().st_size):
            assert process.is_alive()
            time.sleep(0.01)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(10)
    assert left_over(tmp_path) == [".fetching-a", ".fetching-b"]
    there: list[bytes] = []

    def go_on(folder: Path, room: Room) -> dict[str, ModelFile]:
        there.append((folder / "model.onnx").read_bytes())
        return filled()(folder, room)

    cache = ModelCache(tmp_path, max_bytes=2 * MIB)
    cache.get("a", "s3://m/a", MIB, go_on).close()
    assert there == [b"half"]
    put(cache, "c").close()  # there is room for it only where the dead fetch of b had some
    assert (models(tmp_path), left_over(tmp_path)) == (["a", "c"], [])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_takes_from_what_is_not_in_use_and_then_says_so(small_disk: Path) -> None:
    cache = ModelCache(small_disk)
    put(cache, "a").close()
    with put(cache, "b", 2 * MIB):
        put(cache, "c", 2 * MIB - 64 * 1024).close()
        assert models(small_disk) == ["b", "c"]
        with pytest.raises(Unavailable, match=telling("disk MiB")) as caught:
            put(cache, "d", 3 * MIB)
    assert caught.value.reason == Reason.CACHE_UNAVAILABLE
    assert models(small_disk) == ["b"]


def test_a_disk_that_fills_up_under_a_model_of_unknown_size_takes_from_the_others_first(small_disk: Path) -> None:
    def stream(size: int) -> Callable[[Path, Room], dict[str, ModelFile]]:
        def fill(folder: Path, room: Room) -> dict[str, ModelFile]:
            with (folder / "model.onnx").open("wb", buffering=0) as out:
                for _ in range(size // 65536):
                    _put(out, b"m" * 65536, room)
            return describe_folder(folder)

        return fill

    cache = ModelCache(small_disk)
    put(cache, "a", 2 * MIB).close()
    cache.get("b", "https://m/b", None, stream(3 * MIB)).close()
    assert models(small_disk) == ["b"]
    with cache.get("b", "https://m/b", None, stream(0)), pytest.raises(Unavailable) as caught:
        cache.get("c", "https://m/c", None, stream(3 * MIB))
    assert caught.value.reason == Reason.CACHE_UNAVAILABLE
    assert (models(small_disk), left_over(small_disk)) == (["b"], [])


def as_another_user(folder: str, told: multiprocessing.Queue[str]) -> None:
    os.setgid(1000)
    os.setuid(1000)
    try:
        put(ModelCache(Path(folder) / "cache"), "a")
    except Unavailable as error:
        told.put(f"{error.reason}: {error.message}")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_a_folder_that_may_not_be_written_to_says_who_must_be_let_in(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    told: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=as_another_user, args=(str(tmp_path), told))
    process.start()
    said = told.get(timeout=30)
    process.join(30)
    assert_tells(said, "CacheUnavailable user 1000 write", str(tmp_path / "cache"))
