"""Tar archives, unpacked as they arrive. Only plain files and folders come out, and only into the folder."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock_runtime.sources.source import CHUNK_BYTES, Archive, Packing

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MOST_ENTRIES: Final = 100_000
_SKIPPED_BYTES: Final = 64 * 1024
"""At a time, of what is not wanted."""
_MOST_HEADER_BYTES: Final = 1024 * 1024
"""Of an entry's headers together, and of what an archive says of all its entries: `tarfile` keeps them in memory."""
_SHOWN_CHARACTERS: Final = 200
"""Of an entry's name, in a message."""
_MOST_WINDOW: Final = 128 * 1024 * 1024
"""Bytes that zstd may look back, and so keep in memory; what its command line takes without being asked to."""
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"

Writer = Callable[[Path, Iterator[bytes]], None]
"""Puts pieces into a new file, minding the room that there is."""


def unpack(pieces: Iterator[bytes], archive: Archive, folder: Path, write: Writer, where: str) -> None:
    """Unpack an archive into a folder. All pieces are consumed, also those behind the archive's end.

    Args:
        pieces: of the archive, as it is stored.
        archive: how it is packed, and what of it is wanted.
        folder: there must be no links in it.
        write: called for each file.
        where: the archive, for messages.

    Raises:
        Invalid: ModelInvalid; an entry is a link, a device or outside the folder, there are too many, their headers are
            too large, or it is no such archive. UnsupportedStorage; the library for its compression is not installed.
    """
    incoming: io.BufferedReader = io.BufferedReader(_Incoming(pieces), CHUNK_BYTES)
    try:
        for tar, member in _members(_decompress(incoming, archive.packing, where), where):
            _entry(tar, member, _Goal(archive, folder, write, where))
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise _refusal(where, f"is no {archive.packing} archive ({error})") from error
    for _ in pieces:
        pass


def _members(plain: Any, where: str) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The entries of an archive, each before the next one's headers are read; none is remembered."""
    stream: Any = _Forwards(plain, where)
    tar: tarfile.TarFile | None = None
    count = 0
    while True:
        with stream.reading_headers():
            try:
                tar = tar or tarfile.TarFile(fileobj=stream)
                member = tar.next()
            except (ValueError, IndexError, RecursionError) as error:  # tarfile's, for headers that make no sense
                raise tarfile.ReadError(f"its headers make no sense: {type(error).__name__}") from error
        if member is None:
            return
        if sum(len(key) + len(value) for key, value in tar.pax_headers.items()) > _MOST_HEADER_BYTES:
            raise _header_error(where)
        count += 1
        if count > _MOST_ENTRIES:
            raise _refusal(where, f"has more than {_MOST_ENTRIES} entries")
        # Where it keeps each, which for 100,000 is much. The name is not documented, but has been there since 2003.
        tar.members.clear()  # type: ignore[attr-defined]
        yield tar, member


class _Forwards:
    """A file that `tarfile` reads from its start to its end, and of which it gets no more headers than it may have.

    It reads the headers that come before an entry whole, one within the other: long names, PAX's records, maps of sparse
    files, of which each says for itself how large it is, if at all.
    """

    def __init__(self, plain: Any, where: str) -> None:
        self._plain = plain
        self._where = where
        self._position = 0
        self._header_bytes: int | None = None
        """How many more may be read; None: any, since it is content that is read."""

    @contextmanager
    def reading_headers(self) -> Iterator[None]:
        """What is read meanwhile are one entry's headers. What is passed over by `seek` is not."""
        self._header_bytes = _MOST_HEADER_BYTES
        try:
            yield
        finally:
            self._header_bytes = None

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.StreamError("its headers lead backwards")
        while self._position < position and self._read_next(min(position - self._position, _SKIPPED_BYTES)):
            pass

    def read(self, size: int) -> bytes:
        """So many bytes; fewer only at the end."""
        if size < 0:
            raise tarfile.ReadError("its headers say that one of them is smaller than nothing")
        if self._header_bytes is not None:
            self._header_bytes -= size
            if self._header_bytes < 0:
                raise _header_error(self._where)
        found = bytearray()
        while len(found) < size and (piece := self._read_next(size - len(found))):
            found += piece
        return bytes(found)

    def _read_next(self, most: int) -> bytes:
        piece: bytes = self._plain.read(most)
        self._position += len(piece)
        return piece


class _Incoming(io.RawIOBase):
    """Pieces, read as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: WriteableBuffer) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        into = memoryview(target)
        count = min(len(into), len(self._left))
        into[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _decompress(incoming: io.BufferedReader, packing: Packing, where: str) -> Any:
    """The archive as it was before it was compressed; it has `read`, which may give less than it is asked for."""
    match packing:
        case Packing.PLAIN:
            return incoming
        case Packing.GZIP:
            return gzip.GzipFile(fileobj=incoming, mode="rb")
        case Packing.ZSTD:
            return _open_zstd(incoming, where)


def _open_zstd(incoming: io.BufferedReader, where: str) -> Any:
    try:
        import zstandard  # noqa: PLC0415 -- few archives need it
    except ImportError as error:
        raise Invalid(
            Reason.UNSUPPORTED_STORAGE,
            f"{where} is compressed with zstd, and its library is not installed: install penstock[oci], or use gzip",
        ) from error

    class Reader:
        """The library's reader, whose error is then tarfile's."""

        def __init__(self) -> None:
            decompressor = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW)
            self._stream: Any = decompressor.stream_reader(incoming, read_across_frames=True)

        def read(self, size: int) -> bytes:
            try:
                return bytes(self._stream.read(size))
            except zstandard.ZstdError as error:
                raise tarfile.ReadError(str(error)) from error

    return Reader()


@dataclass(frozen=True, slots=True)
class _Goal:
    """What of an archive is wanted, and where it goes."""

    archive: Archive
    folder: Path
    write: Writer
    where: str


def _entry(tar: tarfile.TarFile, member: tarfile.TarInfo, goal: _Goal) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise _refusal(goal.where, f"has the entry {_show_name(member)}, which leads out of the folder")
    if goal.archive.below:
        if path.parts[:1] != (goal.archive.below,):
            return
        path = path.relative_to(goal.archive.below)
    target = goal.folder / path
    if goal.archive.layered and path.name.startswith(_WHITEOUT):
        _apply_whiteout(target)
    elif member.isdir():
        _make_folder(target, member, goal.where)
    elif member.isreg() and not member.issparse():
        content = tar.extractfile(member)
        if content is None or not path.parts:
            raise _refusal(goal.where, f"has the entry {_show_name(member)}, which is not readable")
        _make_folder(target.parent, member, goal.where)
        _remove(target)
        goal.write(target, iter(lambda: content.read(CHUNK_BYTES), b""))
    else:
        kind = "a link" if member.issym() or member.islnk() else "neither a file nor a folder"
        raise _refusal(goal.where, f"has the entry {_show_name(member)}, which is {kind}")


def _show_name(member: tarfile.TarInfo) -> str:
    return repr(member.name[:_SHOWN_CHARACTERS])


def _make_folder(target: Path, member: tarfile.TarInfo, where: str) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _refusal(where, f"has the entry {_show_name(member)} where there is a file already") from error


def _apply_whiteout(whiteout: Path) -> None:
    """What an image's layer says is gone."""
    if whiteout.name == _OPAQUE:
        for each in whiteout.parent.iterdir() if whiteout.parent.is_dir() else ():
            _remove(each)
        return
    name = whiteout.name.removeprefix(_WHITEOUT)
    if name not in ("", ".", ".."):
        _remove(whiteout.parent / name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _header_error(where: str) -> Invalid:
    return _refusal(where, f"has more than {_MOST_HEADER_BYTES // 2**20} MiB of headers for one entry, or for all")


def _refusal(where: str, what: str) -> Invalid:
    return Invalid(
        Reason.MODEL_INVALID, f"the archive {where} {what}: pack the model again, as plain files and folders"
    )
