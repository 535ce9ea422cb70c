"""Models in an object store: S3 and Google Cloud Storage, by fsspec's file systems."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

import fsspec.asyn

from penstock_runtime.filesystems import TIMEOUTS, file_system, normalize_path
from penstock_runtime.sources.source import (
    SMALL_BYTES,
    TRIES,
    RemoteFile,
    RemoteListing,
    SourceChanged,
    size_error,
    sort_files,
)

_PIECE_BYTES: Final = 8 * 1024 * 1024
"""Of each request for a range: large enough to keep a link busy, and held in memory once."""
_VERSIONS: Final = ("ETag", "generation", "etag", "LastModified", "updated")
"""Of an object, whichever the file system tells. The first is S3's, the second Google's, and both can be asked for."""


class ObjectSource:
    """A folder or an object of a bucket.

    Args:
        uri: such as `s3://bucket/prefix`.
        options: of fsspec's file system.

    Raises:
        Invalid: UnsupportedStorage, when the library is not installed.
    """

    def __init__(self, uri: str, options: Mapping[str, Any]) -> None:
        self.uri = uri.rstrip("/")
        # gcsfs tries again by itself, for half a minute, and cannot be told not to; s3fs can.
        self._s3 = uri.startswith("s3")
        self.tries = TRIES if self._s3 else 1
        self._files, base = file_system(self.uri, {"use_listings_cache": False, **_retry_options(self.uri), **options})
        if self.tries > 1:
            self._files.retries = 1
        self._base = base.rstrip("/")

    def listing(self) -> RemoteListing:
        """All objects below the URI; where there are none, the object that it names."""
        found: Mapping[str, Mapping[str, Any]] = self._files.find(self._base, detail=True)
        below = {path: about for path, about in found.items() if path != self._base and not path.endswith("/")}
        if below:
            return RemoteListing(sort_files([self._file(path, about) for path, about in below.items()]))
        if self._base in found:
            return RemoteListing((self._file(self._base, found[self._base]),), lone=True)
        raise FileNotFoundError("no such file or folder")

    def find_neighbours(self, file: RemoteFile, names: Sequence[str]) -> tuple[RemoteFile, ...]:
        """Objects with the same prefix."""
        folder = file.address.removesuffix(file.path)
        found = []
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                about = self._files.info(folder + normalize_path(name))
                if about.get("type") == "file":
                    found.append(replace(self._file(folder + name, about), path=normalize_path(name)))
        return tuple(found)

    def read_small(self, path: str) -> bytes | None:
        """An object below the URI, whole."""
        address = f"{self._base}/{normalize_path(path)}"
        try:
            size = int(self._files.info(address)["size"] or 0)
            if size > SMALL_BYTES:
                raise size_error(f"{self.uri}/{path}")
            return bytes(self._files.cat_file(address))
        except (FileNotFoundError, IsADirectoryError):
            return None

    def stream(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """The content, by requests for ranges, each for the version that was listed."""
        size = file.size or 0
        while offset < size:
            piece = self._piece(file, offset, min(offset + _PIECE_BYTES, size))
            if not piece:
                return
            offset += len(piece)
            yield piece

    def _piece(self, file: RemoteFile, start: int, end: int) -> bytes:
        if not file.versioned:
            return bytes(self._files.cat_file(file.address, start=start, end=end))
        if self._s3:
            return self._s3_piece(file, start, end)
        try:
            return bytes(self._files.cat_file(file.address, start=start, end=end, generation=file.version))
        except FileNotFoundError as error:
            raise SourceChanged(self.uri) from error

    def _s3_piece(self, file: RemoteFile, start: int, end: int) -> bytes:
        """What `cat_file` does, with a condition, which that does not take."""
        bucket, key, _ = self._files.split_path(file.address)
        try:
            answer = self._files.call_s3(
                "get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}", IfMatch=file.version
            )
        except OSError as error:
            said = getattr(error.__cause__, "response", {}).get("ResponseMetadata", {})
            if said.get("HTTPStatusCode") == HTTPStatus.PRECONDITION_FAILED:
                raise SourceChanged(self.uri) from error
            raise
        return bytes(fsspec.asyn.sync(self._files.loop, _read_body, answer["Body"]))

    def _file(self, path: str, about: Mapping[str, Any]) -> RemoteFile:
        name = path.removeprefix(self._base).lstrip("/") or path.rsplit("/", 1)[-1]
        kind = next((each for each in _VERSIONS if about.get(each)), "")
        version = str(about.get(kind, ""))
        versioned = version.startswith('"') if self._s3 else kind == "generation"
        return RemoteFile(
            path=normalize_path(name),
            address=path,
            size=int(about.get("size") or 0),
            version=version,
            versioned=versioned,
        )


async def _read_body(body: Any) -> bytes:
    try:
        return bytes(await body.read())
    finally:
        body.close()


def _retry_options(uri: str) -> Mapping[str, Any]:
    """Who downloads tries again, and goes on where it was; the library need not, too."""
    return {"config_kwargs": {**TIMEOUTS, "retries": {"max_attempts": 1}}} if uri.startswith("s3") else {}
