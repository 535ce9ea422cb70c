"""What every store that models are fetched from can do, and what it says of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from penstock.api.conditions import Reason
from penstock.errors import Invalid, Unavailable

CHUNK_BYTES = 1024 * 1024
"""Sources yield about so much at a time."""
SMALL_BYTES = 16 * 1024 * 1024
"""Manifests, signatures and indexes are no larger than this."""
TRIES = 5
"""With pauses of about 0.5, 1, 2 and 4 seconds between them."""


class Algorithm(StrEnum):
    """How a checksum is made."""

    SHA256 = "SHA-256"
    GIT = "git object id"
    """SHA-1 over `blob`, the size and the content, as Git names a file. The Hub knows small files by it."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a file's content must be."""

    algorithm: Algorithm
    hexdigest: str
    origin: str
    """Who says so, as a message names it: `manifest.json`, `the registry`."""

    def hasher(self, size: int | None) -> Any:
        """A `hashlib` object that content of `size` bytes is fed to."""
        match self.algorithm:
            case Algorithm.SHA256:
                return hashlib.sha256()
            case Algorithm.GIT:
                return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)


class Packing(StrEnum):
    """How a tar archive is compressed."""

    PLAIN = "tar"
    GZIP = "tar+gzip"
    ZSTD = "tar+zstd"


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar archive that is unpacked into the model's folder."""

    packing: Packing
    below: str = ""
    """Only entries below this folder of the archive belong to the model; their paths start there."""
    layered: bool = False
    """Whether it is a layer of an image, whose `.wh.` entries take away what lower layers put there."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One thing to download."""

    path: str
    """In the model's folder; of an archive: a name for messages."""
    address: str
    """Where the source finds it."""
    size: int | None = None
    """Bytes; None: the store does not say."""
    checksums: tuple[Checksum, ...] = ()
    version: str = ""
    """What changes when the content does, such as an ETag."""
    versioned: bool = False
    """Whether the source, asked for the content, sends that of this version or raises `SourceChanged`."""
    archive: Archive | None = None

    @property
    def identity(self) -> str:
        """The content, by its SHA-256 where that is known."""
        known = [each.hexdigest for each in self.checksums if each.algorithm is Algorithm.SHA256]
        shape = f"{self.archive.packing} {self.archive.below}" if self.archive else ""
        return f"{self.path}\0{shape}\0" + (
            f"sha256:{known[0]}" if known else f"{self.address}\0{self.version}\0{self.size}"
        )


@dataclass(frozen=True, slots=True)
class RemoteListing:
    """A model in a store."""

    files: tuple[RemoteFile, ...]
    """By path, but archives in the order in which they are unpacked."""
    lone: bool = False
    """Whether the URI names a single file, not a folder."""
    below: str = ""
    """Folder of the store's in which the files are, with a `/` at its end: that of a version. Empty: the URI's own."""

    @property
    def pinned(self) -> bool:
        """Whether a checksum says of every file what it must be."""
        return all(each.checksums for each in self.files)

    @property
    def size(self) -> int | None:
        """Bytes to download; None where a size is not known."""
        sizes = [each.size for each in self.files]
        return None if None in sizes else sum(each or 0 for each in sizes)

    def key(self, uri: str) -> str:
        """A name for the content, fit for a folder.

        The same files have the same name wherever they lie, when their SHA-256 are known; else a name of the URI and
        the versions there.
        """
        contents = "\n".join([f"lone={self.lone}", *(each.identity for each in self.files)])
        by_content = all(any(sum_.algorithm is Algorithm.SHA256 for sum_ in each.checksums) for each in self.files)
        named = contents if by_content else f"{uri}\n{contents}"
        return f"{'content' if by_content else 'version'}-{hashlib.sha256(named.encode()).hexdigest()}"


class RemoteSource(Protocol):
    """A model in a store that is not this machine's file system.

    Its methods raise whatever the store's library raises, or `Invalid` and `Unavailable`;
    `penstock_runtime.filesystems.translate_errors` turns the first into the second.
    """

    @property
    def uri(self) -> str:
        """As the user wrote it."""

    @property
    def tries(self) -> int:
        """How often to ask in vain before giving up; few where the library tries again itself."""

    def listing(self) -> RemoteListing:
        """What is there now."""

    def read_small(self, path: str) -> bytes | None:
        """A file of at most `SMALL_BYTES` in the folder, whole; None where there is none."""

    def stream(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """The content of a file from a byte on, in pieces of about `CHUNK_BYTES`; see `RemoteFile.versioned`."""


@runtime_checkable
class Neighbourhood(Protocol):
    """A source whose single files have others beside them."""

    def find_neighbours(self, file: RemoteFile, names: Sequence[str]) -> tuple[RemoteFile, ...]:
        """Files in the folder of a file, or below it; those that are not there are left out."""


class SourceChanged(Unavailable):
    """A model was changed in its store while it was fetched. Nothing of what came is used: asking again gets the new one.

    Args:
        uri: of the model.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(Reason.STORAGE_UNREACHABLE, f"{uri} was changed while it was fetched: it is fetched again")


def size_error(where: str) -> Invalid:
    """The refusal of a small file that is not small."""
    return Invalid(
        Reason.MODEL_INVALID,
        f"{where} is larger than {SMALL_BYTES // 2**20} MiB, and so not what its name says: look at it",
    )


def sort_files(files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
    """By path."""
    return tuple(sorted(files, key=lambda each: each.path))
