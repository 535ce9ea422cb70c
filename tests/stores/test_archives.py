"""Archives in registries: what is unpacked, and what is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock_runtime.sources.source import Archive, Packing
from penstock_runtime.sources.unpacking import unpack


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def tar(*members: tarfile.TarInfo, content: bytes = b"m") -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        for each in members:
            each.size = len(content) if each.isreg() else 0
            archive.addfile(each, io.BytesIO(content) if each.isreg() else None)
    return body.getvalue()


def write(path: Path, pieces: Iterator[bytes]) -> None:
    with path.open("xb") as out:
        for piece in pieces:
            out.write(piece)


PLAIN = Archive(Packing.PLAIN)


def unpacked(body: bytes, folder: Path, archive: Archive = PLAIN, piece: int = 1000) -> list[str]:
    folder.mkdir(exist_ok=True)
    unpack((body[i : i + piece] for i in range(0, len(body), piece)), archive, folder, write, "x")
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())


@pytest.mark.parametrize(
    ("packing", "pack"),
    [
        (Packing.PLAIN, lambda body: body),
        (Packing.GZIP, gzip.compress),
        (Packing.GZIP, lambda body: gzip.compress(body[:700]) + gzip.compress(body[700:])),
        (Packing.ZSTD, zstandard.compress),
    ],
    ids=["plain", "gzip", "gzip in two members", "zstd"],
)
@pytest.mark.parametrize("piece", [7, 512, 10**6])
def test_files_come_out_however_they_are_packed_and_sent(
    tmp_path: Path, packing: Packing, pack: Callable[[bytes], bytes], piece: int
) -> None:
    body = pack(tar(member("./a/model.onnx"), member("b"), content=b"weights" * 500))
    assert unpacked(body, tmp_path / "out", Archive(packing), piece) == ["a/model.onnx", "b"]
    assert (tmp_path / "out" / "a" / "model.onnx").read_bytes() == b"weights" * 500


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([member("../escaped")], "leads out of the folder"),
        ([member("a/../../escaped")], "leads out of the folder"),
        ([member("/etc/passwd")], "leads out of the folder"),
        ([member("model.onnx", tarfile.SYMTYPE, "/etc/passwd")], "which is a link"),
        ([member("a", tarfile.SYMTYPE, ".."), member("a/escaped")], "which is a link"),
        ([member("model.onnx", tarfile.LNKTYPE, "/etc/passwd")], "which is a link"),
        ([member("null", tarfile.CHRTYPE)], "neither a file nor a folder"),
        ([member("disk", tarfile.BLKTYPE)], "neither a file nor a folder"),
        ([member("pipe", tarfile.FIFOTYPE)], "neither a file nor a folder"),
        ([member("a"), member("a/b")], "where there is a file already"),
    ],
    ids=[
        "a path out of the folder", "a path out of it by a detour", "an absolute path", "a link", "a file through a link",
        "a hard link", "a character device", "a block device", "a pipe", "a file in a file",
    ],
)  # fmt: skip
def test_hostile_entries_are_refused_and_nothing_is_written_outside(
    tmp_path: Path, members: list[tarfile.TarInfo], message: str
) -> None:
    with pytest.raises(Invalid, match=message) as caught:
        unpacked(tar(*members), tmp_path / "out")
    assert caught.value.reason == Reason.MODEL_INVALID
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("body", "packing"),
    [
        (b"not an archive" * 100, Packing.PLAIN),
        (b"not an archive" * 100, Packing.GZIP),
        (b"not an archive" * 100, Packing.ZSTD),
        (gzip.compress(tar(member("a"), content=b"w" * 5000))[:60], Packing.GZIP),
    ],
    ids=["no tar", "no gzip", "no zstd", "gzip that ends too early"],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, body: bytes, packing: Packing) -> None:
    with pytest.raises(Invalid, match=f"is no {packing.replace('+', '.')} archive"):
        unpacked(body, tmp_path / "out", Archive(packing))


def test_of_an_image_only_what_is_below_models_comes_out_and_whiteouts_take_away(tmp_path: Path) -> None:
    car = Archive(Packing.PLAIN, below="models", layered=True)
    unpacked(
        tar(member("bin/sh", tarfile.SYMTYPE, "/bin/busybox"), member("models/old"), member("models/d/x")),
        tmp_path / "o",
        car,
    )
    found = unpacked(
        tar(member("models/.wh.old"), member("models/d/.wh..wh..opq"), member("models/new")), tmp_path / "o", car
    )
    assert found == ["new"]
