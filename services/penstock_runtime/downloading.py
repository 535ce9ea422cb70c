"""Bringing a model from a store into a folder: checked as it streams, resumed where a connection breaks.

A file is gone on with only if it cannot become a mixture of two versions: a checksum is known that all of it is held
against, the store is held to one version, or what came before is asked for again and compared.
"""

from __future__ import annotations

import errno
import hashlib
import random
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from penstock.api.conditions import Reason
from penstock.errors import Invalid, PenstockError, Unavailable
from penstock.serving.manifest import ModelFile
from penstock_runtime.filesystems import storage_error, translate_errors
from penstock_runtime.sources.source import (
    CHUNK_BYTES,
    Checksum,
    RemoteFile,
    RemoteListing,
    RemoteSource,
    SourceChanged,
)
from penstock_runtime.sources.unpacking import unpack

_FORGIVING_BYTES: Final = 1024 * 1024
"""What came between two failures for the second one to count as the first."""
_FIRST_DELAY_SECONDS: Final = 0.5
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

Result = TypeVar("Result")


class Room(Protocol):
    """Where bytes may be put."""

    def claim(self, count: int) -> None:
        """Have room for so many more bytes.

        Raises:
            Unavailable: CacheUnavailable; there is none.
        """

    def reclaim(self, error: OSError) -> None:
        """Make room after the disk said that it is full.

        Raises:
            Unavailable: CacheUnavailable; there is none to be made.
        """


def retry(source: RemoteSource, act: Callable[[], Result]) -> Result:
    """Do what a store may fail at for a moment, a few times, with growing pauses.

    Raises:
        Invalid: what the store refuses.
        Unavailable: it failed each time.
    """
    for failures in range(1, source.tries):
        try:
            with translate_errors(source.uri):
                return act()
        except Unavailable:
            _pause(failures)
    with translate_errors(source.uri):
        return act()


def download(source: RemoteSource, listing: RemoteListing, folder: Path, room: Room) -> dict[str, ModelFile]:
    """Bring all files into a folder that nobody else looks into.

    What an earlier download of the same listing left there is used where checksums are known: such files are read again,
    and go on where they end.

    Returns:
        Every file in the folder, by relative path.

    Raises:
        Invalid: DigestMismatch, naming the file, what it should be and what it is; ModelInvalid for a bad archive; or
            what the store refuses.
        Unavailable: StorageUnreachable, `SourceChanged` among it, or CacheUnavailable for a full disk.
    """
    found: dict[str, ModelFile] = {}
    for file in listing.files:
        where = _describe_place(source, listing, file)
        if file.archive is None:
            found[file.path] = _plain_file(source, file, folder / file.path, room, where)
        else:
            found |= _archive(source, file, folder, room, where)
    return {name: about for name, about in found.items() if (folder / name).is_file()}


def _archive(source: RemoteSource, file: RemoteFile, folder: Path, room: Room, where: str) -> dict[str, ModelFile]:
    found: dict[str, ModelFile] = {}

    def write(path: Path, pieces: Iterator[bytes]) -> None:
        digest = hashlib.sha256()
        with path.open("wb", buffering=0) as out:
            for piece in pieces:
                digest.update(piece)
                _put(out, piece, room)
        found[path.relative_to(folder).as_posix()] = ModelFile(
            sha256=digest.hexdigest(), size_bytes=path.stat().st_size
        )

    if file.archive is None:
        return found
    checks = _Checks(file, where)
    pieces = checks.verify(_stream_with_retries(source, file, 0))
    try:
        unpack(pieces, file.archive, folder, write, where)
    except Invalid as error:
        if error.reason == Reason.MODEL_INVALID:
            # Of what was damaged on its way, the checksum says more than the place where it makes no sense.
            for _ in pieces:
                pass
        raise
    return found


def _plain_file(source: RemoteSource, file: RemoteFile, target: Path, room: Room, where: str) -> ModelFile:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not file.checksums:
        # An earlier download may have met another version, that was there for a while; nothing would tell.
        target.unlink(missing_ok=True)
    elif target.is_file() and target.stat().st_size:
        try:
            return _resume(source, file, target, room, where)
        except Invalid as error:
            if error.reason != Reason.DIGEST_MISMATCH:
                raise
            target.unlink()  # what the earlier download left is what is wrong, or the store is: once more from the start
    return _resume(source, file, target, room, where)


def _resume(source: RemoteSource, file: RemoteFile, target: Path, room: Room, where: str) -> ModelFile:
    """Go on where a file ends, and look at it whole."""
    checks = _Checks(file, where)
    with target.open("ab", buffering=0) as out:
        with target.open("rb") as there:
            for _ in checks.verify(iter(lambda: there.read(CHUNK_BYTES), b""), last=False):
                pass
            offset = there.tell()
        room.claim(offset)
        rest = _stream_with_retries(source, file, offset) if offset != file.size else iter(())
        for piece in checks.verify(rest):
            _put(out, piece, room)
    return ModelFile(sha256=checks.sha256, size_bytes=checks.count)


class _Checks:
    """What a file should be, held against its bytes as they pass."""

    def __init__(self, file: RemoteFile, where: str) -> None:
        self._size = file.size
        self._where = where
        self._hashers: list[tuple[Checksum, Any]] = [(each, each.hasher(file.size)) for each in file.checksums]
        self._plain = hashlib.sha256()
        self.count = 0

    @property
    def sha256(self) -> str:
        """Of what has passed."""
        return self._plain.hexdigest()

    def verify(self, pieces: Iterator[bytes], *, last: bool = True) -> Iterator[bytes]:
        """The pieces; after the last one of the file it is known whether they are what they should be."""
        for piece in pieces:
            self.count += len(piece)
            if self._size is not None and self.count > self._size:
                raise self._mismatch(f"{self._size} bytes, as the store says", "more")
            self._plain.update(piece)
            for _, hasher in self._hashers:
                hasher.update(piece)
            yield piece
        if not last:
            return
        if self._size is not None and self.count != self._size:
            raise self._mismatch(f"{self._size} bytes, as the store says", f"{self.count}")
        for checksum, hasher in self._hashers:
            if hasher.hexdigest() != checksum.hexdigest:
                wanted = f"{checksum.algorithm} {checksum.hexdigest}, as {checksum.origin} says"
                raise self._mismatch(wanted, hasher.hexdigest())

    def _mismatch(self, wanted: str, found: str) -> Invalid:
        return Invalid(
            Reason.DIGEST_MISMATCH,
            f"{self._where} is not what it should be: expected {wanted}, found {found}. "
            "It was changed or copied in part; put it there again",
        )


def _stream_with_retries(source: RemoteSource, file: RemoteFile, offset: int) -> Iterator[bytes]:
    """The content from a byte on, over breaks and refusals that pass."""
    failures, since = 0, offset
    sent = None if file.checksums or file.versioned else hashlib.sha256()
    while True:
        trouble: PenstockError
        try:
            for piece in source.stream(file, offset) if sent is None else _stream_comparing(source, file, offset, sent):
                offset += len(piece)
                yield piece
            if file.size is None or offset >= file.size:
                return
            trouble = Unavailable(
                Reason.STORAGE_UNREACHABLE,
                f"{source.uri} stops after {offset} of the {file.size} bytes of {file.path}: check the server",
            )
        except PenstockError as error:
            trouble = error
        except Exception as error:  # noqa: BLE001 -- each store's library has errors of its own
            trouble = storage_error(source.uri, error)
        failures = 1 if offset - since >= _FORGIVING_BYTES else failures + 1
        since = offset
        if not isinstance(trouble, Unavailable) or isinstance(trouble, SourceChanged) or failures >= source.tries:
            raise trouble
        _pause(failures)


def _stream_comparing(source: RemoteSource, file: RemoteFile, offset: int, sent: Any) -> Iterator[bytes]:
    """The content from a byte on; all is asked for, and what comes before that byte must be what came the first time.

    Args:
        source: which cannot be held to one version.
        file: whose content nothing is known of.
        offset: of the first byte that is wanted.
        sent: a `hashlib` object that was fed what came before it, and is fed what comes now.

    Raises:
        SourceChanged: it is not.
    """
    again, left = hashlib.sha256(), offset
    for piece in source.stream(file, 0):
        known, fresh = piece[:left], piece[left:]
        left -= len(known)
        again.update(known)
        if known and not left and again.digest() != sent.digest():
            raise SourceChanged(source.uri)
        if fresh:
            sent.update(fresh)
            yield fresh
    if left:
        raise SourceChanged(source.uri)


def _pause(failures: int) -> None:
    """Longer each time, and not in step with others that failed at the same moment."""
    time.sleep(_FIRST_DELAY_SECONDS * 2 ** (failures - 1) * random.uniform(0.5, 1.0))  # noqa: S311 -- no secret


def _put(out: FileIO, piece: bytes, room: Room) -> None:
    room.claim(len(piece))
    left = memoryview(piece)
    while left:
        try:
            left = left[out.write(left) :]
        except OSError as error:
            if error.errno not in _FULL:
                raise
            room.reclaim(error)


def _describe_place(source: RemoteSource, listing: RemoteListing, file: RemoteFile) -> str:
    if listing.lone:
        return source.uri
    return f"{file.path} of {source.uri}" if file.archive else f"{source.uri}/{file.path}"
