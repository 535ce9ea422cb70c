"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import pytest

from penstock_runtime.atomic import READABLE_BY_ALL, stage_file, stage_folder, write_atomically


def test_a_file_takes_the_place_of_the_old_one_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "routes.json"
    for body in (b"old", b"new"):
        write_atomically(path, body)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(None, 0o600), (READABLE_BY_ALL, 0o644)],
    ids=["by nobody else, as the process's umask says", "by all, where that was asked for"],
)
def test_is_read_under_a_strict_umask(tmp_path: Path, mode: int | None, expected: int) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "routes.json", b"{}", mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "routes.json").stat().st_mode) == expected


def test_what_goes_wrong_midway_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    write_atomically(path, b"old")
    with contextlib.suppress(KeyboardInterrupt), stage_file(path) as partial:
        partial.write_bytes(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", [False, True], ids=["a folder that is whole", "a folder that is not"])
def test_takes_the_place_of_the_old_one_only_when_it_is_whole(tmp_path: Path, *, fails: bool) -> None:
    path = tmp_path / "data"
    path.mkdir()
    (path / "old").touch()
    with contextlib.suppress(KeyboardInterrupt), stage_folder(path) as partial:
        (partial / "new").touch()
        if fails:
            raise KeyboardInterrupt
    assert [each.name for each in path.iterdir()] == ["old" if fails else "new"]
    assert list(tmp_path.iterdir()) == [path]
