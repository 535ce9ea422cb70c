"""A layer: the files of one directory as a tar archive that is the same wherever and whenever it is written."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from penstock.errors import Invalid

if TYPE_CHECKING:
    from typing_extensions import Buffer

MEDIA_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
_STICKY_FOLDERS: Final = frozenset({"tmp", "var/tmp"})
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Layer:
    """A layer on disk.

    Attributes:
        blob: the tar archive, not compressed.
        digest: `sha256:…` of it; as it is not compressed, also its diff id.
        size: its length in bytes.
    """

    blob: Path
    digest: str
    size: int


@dataclass(frozen=True)
class Owner:
    """Who owns a path inside an image, by number."""

    uid: int
    gid: int


ROOT: Final = Owner(0, 0)


class HashingWriter(io.RawIOBase):
    """A file that is written in sequence, and the digest of what went into it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        """Yes; it cannot be read."""
        return True

    def write(self, body: Buffer, /) -> int:
        """Write all of `body`; returns its length in bytes."""
        with memoryview(body) as view:
            self._hash.update(view)
            self.size += view.nbytes
            self._file.write(view)
            return view.nbytes

    @property
    def digest(self) -> str:
        """`sha256:…` of all that was written."""
        return f"sha256:{self._hash.hexdigest()}"


def write_layer(tree: Path, blob: Path, *, owners: Mapping[str, Owner] | None = None) -> Layer:
    """Archive all that is in `tree`: sorted, at time 0, owned by root save `owners` (relative path → owner).

    Modes do not depend on the umask that made the files: folders are 0755 (`tmp` and `var/tmp` 1777), files 0755 where
    anyone may execute them, else 0644. A file or folder that its owner closed to everyone else stays closed.

    Raises:
        Invalid: `tree` holds what no image of ours may: a file with the setuid or setgid bit, a device, a socket, a
            pipe, or something that everyone may write outside the folders for temporary files.
    """
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(f".{blob.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            written = HashingWriter(file)
            with tarfile.open(fileobj=written, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK) as archive:
                for path in _walk(tree):
                    _add(archive, tree, path, owners or {})
        partial.replace(blob)
    finally:
        partial.unlink(missing_ok=True)
    return Layer(blob, written.digest, written.size)


def _walk(tree: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(tree):
        links = [name for name in folders if Path(root, name).is_symlink()]
        folders[:] = sorted(set(folders) - set(links))
        for name in sorted([*folders, *links, *files]):
            yield Path(root, name)


def _add(archive: tarfile.TarFile, tree: Path, path: Path, owners: Mapping[str, Owner]) -> None:
    name = path.relative_to(tree).as_posix()
    status = path.lstat()
    entry = tarfile.TarInfo(name)
    owner = owners.get(name, ROOT)
    entry.uid, entry.gid = owner.uid, owner.gid
    entry.mode = image_mode(name, status.st_mode)
    match stat.S_IFMT(status.st_mode):
        case stat.S_IFDIR:
            entry.type = tarfile.DIRTYPE
        case stat.S_IFLNK:
            entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
        case _:
            entry.size = status.st_size
            with path.open("rb") as file:
                archive.addfile(entry, file)
            return
    archive.addfile(entry)


def image_mode(name: str, mode: int) -> int:
    """The mode that a path has in an image, from its path there and its `st_mode` on disk.

    Raises:
        Invalid: no image may hold it.
    """
    kind = stat.S_IFMT(mode)
    if kind not in {stat.S_IFDIR, stat.S_IFLNK, stat.S_IFREG}:
        raise _refusal(name, "a device, socket or pipe")
    if kind == stat.S_IFLNK:
        return 0o777
    if kind == stat.S_IFDIR and name in _STICKY_FOLDERS:
        return 0o1777
    if kind == stat.S_IFREG and mode & (stat.S_ISUID | stat.S_ISGID):
        raise _refusal(name, "a file with the setuid or setgid bit")
    if mode & stat.S_IWOTH:
        raise _refusal(name, "writable by everyone")
    closed = 0o077 if not mode & 0o077 and name.split("/", maxsplit=1)[0] in {"root", "etc", "var"} else 0
    executable = kind == stat.S_IFDIR or mode & 0o111
    return (0o755 if executable else 0o644) & ~closed


def _refusal(name: str, what: str) -> Invalid:
    return Invalid("ImageUnsafe", f"/{name} is {what}, which no image may hold: remove it or change its mode")
