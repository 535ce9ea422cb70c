"""What a layer may hold, and that only its content decides its bytes."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

import pytest
from images.layers import Owner, image_mode, write_layer

from penstock.errors import Invalid


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        pytest.param("usr/lib/x.py", stat.S_IFREG | 0o600, 0o644, id="a file of a strict umask is open to read"),
        pytest.param("usr/bin/x", stat.S_IFREG | 0o700, 0o755, id="a program of a strict umask is open to run"),
        pytest.param("usr/lib", stat.S_IFDIR | 0o700, 0o755, id="a folder of a strict umask is open"),
        pytest.param("usr/lib/x", stat.S_IFREG | 0o664, 0o644, id="a file that a group may write is closed to it"),
        pytest.param("etc/shadow", stat.S_IFREG | 0o600, 0o600, id="a secret file of the base stays closed"),
        pytest.param("root", stat.S_IFDIR | 0o700, 0o700, id="root's home stays closed"),
        pytest.param("tmp", stat.S_IFDIR | 0o755, 0o1777, id="the folder for temporary files is everyone's, sticky"),
        pytest.param("usr/bin/x", stat.S_IFLNK | 0o777, 0o777, id="a link has no mode of its own"),
    ],
)
def test_a_mode_in_an_image_does_not_depend_on_the_machine_that_made_the_file(
    name: str, mode: int, expected: int
) -> None:
    assert image_mode(name, mode) == expected


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        pytest.param("usr/bin/su", stat.S_IFREG | 0o4755, "setuid", id="a setuid file"),
        pytest.param("usr/bin/wall", stat.S_IFREG | 0o2755, "setgid", id="a setgid file"),
        pytest.param("dev/sda", stat.S_IFBLK | 0o600, "device", id="a block device"),
        pytest.param("dev/null", stat.S_IFCHR | 0o666, "device", id="a character device"),
        pytest.param("run/x.sock", stat.S_IFSOCK | 0o755, "socket", id="a socket"),
        pytest.param("run/pipe", stat.S_IFIFO | 0o644, "pipe", id="a pipe"),
        pytest.param("opt/shared", stat.S_IFDIR | 0o777, "everyone", id="a folder that everyone may write"),
        pytest.param("opt/x", stat.S_IFREG | 0o666, "everyone", id="a file that everyone may write"),
        pytest.param("opt/tmp", stat.S_IFDIR | 0o1777, "everyone", id="a sticky folder elsewhere"),
    ],
)
def test_no_image_holds_it(name: str, mode: int, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        image_mode(name, mode)


def _tree(root: Path, *, reverse: bool) -> Path:
    names = ["opt/b", "opt/a", "opt/a.d/c"]
    for name in reversed(names) if reverse else names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "opt/link").symlink_to("a")
    (root / "opt/folder-link").symlink_to("a.d")
    return root


def test_the_order_times_and_modes_of_files_on_disk_do_not_change_a_layer(tmp_path: Path) -> None:
    first, second = _tree(tmp_path / "1", reverse=False), _tree(tmp_path / "2", reverse=True)
    os.utime(second / "opt/a", (1, 1))
    (second / "opt/b").chmod(0o600)
    layers = [write_layer(tree, tmp_path / f"{tree.name}.tar") for tree in (first, second)]
    assert layers[0].digest == layers[1].digest
    assert layers[0].blob.read_bytes() == layers[1].blob.read_bytes()


def test_a_changed_byte_changes_a_layer(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "1", reverse=False)
    before = write_layer(tree, tmp_path / "before.tar")
    (tree / "opt/a").write_text("other")
    assert write_layer(tree, tmp_path / "after.tar").digest != before.digest


def test_a_layer_holds_links_as_links_and_owners_by_number(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "1", reverse=False)
    layer = write_layer(tree, tmp_path / "layer.tar", owners={"opt/b": Owner(1000, 1000)})
    with tarfile.open(layer.blob) as archive:
        found = {entry.name: entry for entry in archive}
    assert list(found) == ["opt", "opt/a", "opt/a.d", "opt/b", "opt/folder-link", "opt/link", "opt/a.d/c"]
    assert found["opt/folder-link"].linkname == "a.d"
    assert (found["opt/b"].uid, found["opt/a"].uid, found["opt/a"].mtime, found["opt/a"].uname) == (1000, 0, 0, "")


def test_a_refused_tree_leaves_no_layer(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "1", reverse=False)
    (tree / "opt/b").chmod(0o4755)
    with pytest.raises(Invalid, match="/opt/b"):
        write_layer(tree, tmp_path / "out/layer.tar")
    assert list((tmp_path / "out").iterdir()) == []
