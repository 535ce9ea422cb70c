"""Archives in registries: what is unpacked, and what is refused."""

from __future__ import annotations

import gzip
import io
import itertools
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import zstandard
from tests.telling import telling

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
    ("members", "facts"),
    [
        ([member("../escaped")], "../escaped out folder"),
        ([member("a/../../escaped")], "a/../../escaped out folder"),
        ([member("/etc/passwd")], "/etc/passwd out folder"),
        ([member("model.onnx", tarfile.SYMTYPE, "/etc/passwd")], "model.onnx link"),
        ([member("a", tarfile.SYMTYPE, ".."), member("a/escaped")], "a link"),
        ([member("model.onnx", tarfile.LNKTYPE, "/etc/passwd")], "model.onnx link"),
        ([member("null", tarfile.CHRTYPE)], "null file folder"),
        ([member("disk", tarfile.BLKTYPE)], "disk file folder"),
        ([member("pipe", tarfile.FIFOTYPE)], "pipe file folder"),
        ([member("a"), member("a/b")], "a/b file already"),
    ],
    ids=[
        "a path out of the folder", "a path out of it by a detour", "an absolute path", "a link", "a file through a link",
        "a hard link", "a character device", "a block device", "a pipe", "a file in a file",
    ],
)  # fmt: skip
def test_hostile_entries_are_refused_and_nothing_is_written_outside(
    tmp_path: Path, members: list[tarfile.TarInfo], facts: str
) -> None:
    with pytest.raises(Invalid, match=telling(facts)) as caught:
        unpacked(tar(*members), tmp_path / "out")
    assert caught.value.reason == Reason.MODEL_INVALID
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("body", "packing"),
    [
        (b"not an archive" * 100, Packing.PLAIN),
        (b"not an archive" * 100, Packing.GZIP),
        (b"not an archive" * 100, Packing.ZSTD),
        (gzip.compress(tar(member("a"), content=b"w" * 5000), mtime=0)[:60], Packing.GZIP),
    ],
    ids=["no tar", "no gzip", "no zstd", "gzip that ends too early"],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, body: bytes, packing: Packing) -> None:
    with pytest.raises(Invalid, match=telling("no archive", packing)):
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


MIB = 2**20


def header(kind: bytes, size: int = 0, name: str = "model.onnx", *, map_goes_on: bool = False) -> bytes:
    """512 bytes that tell what comes."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if map_goes_on:
        block[482] = 1
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % tarfile.BLOCKSIZE)


def pax(fields: dict[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """What PAX says of the entry behind it, or of all."""
    body = b""
    for key, value in fields.items():
        rest = f" {key}={value}\n".encode()
        length = next(n for n in itertools.count(len(rest)) if len(str(n)) + len(rest) == n)
        body += str(length).encode() + rest
    return header(kind, len(body)) + padded(body)


def told_at_length(kind: bytes) -> Iterator[bytes]:
    """A header of 64 MiB."""
    yield header(kind, 64 * MIB)
    yield from itertools.repeat(b"a" * MIB, 64)
    yield header(tarfile.REGTYPE)


def told_in_small_pieces() -> Iterator[bytes]:
    """As much in headers, one within the other, each of which is small."""
    for _ in range(100):
        yield header(tarfile.GNUTYPE_LONGNAME, MIB * 9 // 10)
        yield b"a" * (MIB * 9 // 10)
        yield bytes(-(MIB * 9 // 10) % tarfile.BLOCKSIZE)
    yield header(tarfile.REGTYPE)


def one_in_another() -> Iterator[bytes]:
    for _ in range(900):
        yield header(tarfile.GNUTYPE_LONGNAME, 1) + padded(b"a")
    yield header(tarfile.REGTYPE)


def told_of_all() -> Iterator[bytes]:
    """Headers that hold for all entries behind them, each with its own keys."""
    for number in range(100):
        yield pax({f"comment{number}": "a" * (MIB * 9 // 10)}, tarfile.XGLTYPE)
        yield header(tarfile.REGTYPE, name=f"model-{number}")


def endless_map() -> Iterator[bytes]:
    """A sparse file whose map has a million blocks."""
    yield header(tarfile.GNUTYPE_SPARSE, map_goes_on=True)
    yield from itertools.repeat(b"00000000001\0" * 42 + b"\1" + bytes(7), 50_000)


def endless_map_of_pax() -> Iterator[bytes]:
    yield pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
    yield header(tarfile.REGTYPE, 64 * MIB) + b"1000000000\n"
    yield from itertools.repeat((b"0" * 510 + b"1\n") * 2048, 16)


def smaller_than_nothing() -> Iterator[bytes]:
    """A long name of a negative size, which must not make room for a larger one."""
    yield header(tarfile.GNUTYPE_LONGNAME, -64 * MIB)
    yield from told_at_length(tarfile.GNUTYPE_LONGNAME)


HOSTILE = {
    "a long name": lambda: told_at_length(tarfile.GNUTYPE_LONGNAME),
    "a long link": lambda: told_at_length(tarfile.GNUTYPE_LONGLINK),
    "PAX's records": lambda: told_at_length(tarfile.XHDTYPE),
    "PAX's records of all entries": lambda: told_at_length(tarfile.XGLTYPE),
    "Solaris's records": lambda: told_at_length(tarfile.SOLARIS_XHDTYPE),
    "small pieces": told_in_small_pieces,
    "one in another": one_in_another,
    "many records of all entries": told_of_all,
    "the map of a sparse file": endless_map,
    "PAX's map of a sparse file": endless_map_of_pax,
    "a negative size": smaller_than_nothing,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_headers_that_would_fill_the_memory_are_refused_before_they_are_read(tmp_path: Path, name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match=r"headers|smaller") as caught:
            unpack(HOSTILE[name](), PLAIN, tmp_path, write, "x")
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()
    assert caught.value.reason == Reason.MODEL_INVALID


def test_what_an_archive_says_of_its_entries_is_not_remembered(tmp_path: Path) -> None:
    def entries() -> Iterable[bytes]:
        for number in range(50):
            yield pax({"comment": "a" * (MIB // 2), "path": f"model-{number}"}) + header(tarfile.REGTYPE)
        yield bytes(2 * tarfile.BLOCKSIZE)

    tracemalloc.start()
    try:
        unpack(iter(entries()), PLAIN, tmp_path, write, "x")
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()
    assert len(list(tmp_path.iterdir())) == 50


@pytest.mark.parametrize(
    "broken",
    [
        header(tarfile.GNUTYPE_SPARSE, map_goes_on=True),
        pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}) + header(tarfile.REGTYPE, 512) + padded(b"x\n"),
    ],
    ids=["a map that ends too early", "a map that is none"],
)
def test_headers_that_make_no_sense_are_refused(tmp_path: Path, broken: bytes) -> None:
    with pytest.raises(Invalid, match=telling("tar archive headers")):
        unpacked(broken, tmp_path / "out")


def test_a_message_shows_the_beginning_of_a_long_name(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        unpacked(tar(member("a/" * 100_000 + "..", tarfile.SYMTYPE)), tmp_path / "out")
    assert len(caught.value.message) < 500
