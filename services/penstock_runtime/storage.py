"""Where artifacts and reports lie, and are put: a folder, S3, or whatever else fsspec has a file system for.

Credentials and endpoints come from the environment, as each library has it (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`), or
from storage options; a URI with them in it is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.manifest import MANIFEST_NAME
from penstock.serving.versions import Wanted
from penstock_runtime.atomic import READABLE_BY_ALL, stage_file, write_atomically
from penstock_runtime.fetching import ModelCacheSettings, fetch_into_cache
from penstock_runtime.filesystems import (
    file_system,
    file_uri,
    is_local,
    normalize_path,
    translate_errors,
)
from penstock_runtime.local_models import find_local

_SECONDS: Final = 60.0


class Store:
    """A folder, somewhere. Paths in it are relative, with `/` between their parts.

    Args:
        uri: such as `file:///var/lib/penstock`, `s3://bucket/prefix`, or an absolute path.

    Raises:
        Invalid: UnsupportedStorage, for a scheme that is not known or whose library is not installed.
    """

    def __init__(self, uri: str) -> None:
        self.root = file_uri(uri)
        self._files, self._base = file_system(self.root, {})
        self._local = is_local(self.root)

    def uri(self, relative: str) -> str:
        """The URI of a path in the store.

        Raises:
            Invalid: the path leads out of it.
        """
        return f"{self.root.rstrip('/')}/{normalize_path(relative)}"

    def exists(self, relative: str) -> bool:
        """Whether there is a file or a folder."""
        with translate_errors(self.uri(relative)):
            self._files.invalidate_cache()
            try:
                return bool(self._files.exists(self._path(relative)))
            except PermissionError:  # as in `read`
                if self._local:
                    raise
                return self._path(relative) in self._list_files(self._path(relative))

    def read(self, relative: str, most: int | None = None) -> bytes | None:
        """A file's content; None where there is none.

        Args:
            relative: its path.
            most: bytes; no more than one beyond them is asked of the store.

        Raises:
            Invalid: SignatureInvalid; it is longer than `most`, so it is none of ours. Else see `translate_errors`.
            Unavailable: the store does not answer, or not within a minute where there is a bound.
        """
        path = self._path(relative)
        with translate_errors(self.uri(relative)):
            try:
                body = self._content(path, most)
            except PermissionError:
                # Stores do not tell those who may list only a part of them that a file is not there.
                if self._local or path in self._list_files(path):
                    raise
                return None
            except (FileNotFoundError, IsADirectoryError):
                if not self._local:
                    self._require_root()
                return None
        if most is not None and len(body) > most:
            raise Invalid(Reason.SIGNATURE_INVALID, f"it is longer than {most} bytes, as none that we write is")
        return body

    def _content(self, path: str, most: int | None) -> bytes:
        if most is None:
            return bytes(self._files.cat_file(path))
        if not self._files.async_impl:
            return bytes(self._files.cat_file(path, start=0, end=most + 1))
        from fsspec.asyn import sync  # noqa: PLC0415 -- as fsspec itself

        # Its own calls wait for ever for a store that sends a byte now and then.
        read = self._files._cat_file  # noqa: SLF001 -- what `cat_file` calls
        try:
            return bytes(sync(self._files.loop, read, path, start=0, end=most + 1, timeout=_SECONDS))
        except OSError as error:
            if error.errno == errno.EINVAL and "range" in str(error):
                return b""  # of an empty file there is no first byte to give
            raise

    def write(self, relative: str, body: bytes) -> None:
        """Write a file. Who reads it meanwhile sees the old content or the new, whole."""
        with translate_errors(self.uri(relative)):
            if self._local:
                write_atomically(Path(self._path(relative)), body, READABLE_BY_ALL)
            else:
                self._files.pipe_file(self._path(relative), body)

    def probe_permissions(self, relative: str) -> tuple[str, ...]:
        """Which of `list` and `write` this process's credentials may do at a place. What is written is taken away again.

        Raises:
            Unavailable: the store does not answer.
        """
        path, found = self._path(relative), []
        attempts: dict[str, Callable[[], object]] = {
            "list": lambda: self._list_files(path),
            "write": lambda: self._files.pipe_file(path, b""),
        }
        for what, attempt in attempts.items():
            try:
                with translate_errors(self.uri(relative)):
                    attempt()
                found.append(what)
            except Invalid as error:
                if error.reason != Reason.STORAGE_DENIED:
                    raise
        if "write" in found:
            with contextlib.suppress(Exception):  # it may perhaps write and not remove
                self._files.rm_file(path)
        return tuple(found)

    def put_folder(self, local: Path, relative: str) -> str:
        """Copy a folder into the store. Returns its URI.

        A folder with the same `manifest.json` is left as it is. `manifest.json` is written last, so that a folder that
        has one is whole; on a file system a new folder appears whole, by renaming.

        Raises:
            Invalid: the local folder is empty, or the store refuses.
            Unavailable: the store does not answer.
        """
        names = sorted(path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file())
        if not names:
            raise Invalid(Reason.MODEL_NOT_FOUND, f"{local} holds no file to put at {self.uri(relative)}")
        target = self.uri(relative)
        manifest = local / MANIFEST_NAME
        if manifest.is_file() and self.read(f"{relative}/{MANIFEST_NAME}") == manifest.read_bytes():
            return target
        with translate_errors(target):
            if self._local and self._rename_into_place(local, Path(self._path(relative))):
                return target
        for name in sorted(names, key=lambda each: (each == MANIFEST_NAME, each)):
            self._put_file(local / name, f"{relative}/{name}")
        return target

    def _put_file(self, source: Path, relative: str) -> None:
        with translate_errors(self.uri(relative)):
            if self._local:
                with stage_file(Path(self._path(relative)), READABLE_BY_ALL) as partial:
                    shutil.copyfile(source, partial)
            else:
                self._files.put_file(str(source), self._path(relative))

    @staticmethod
    def _rename_into_place(local: Path, target: Path) -> bool:
        """Copy beside the target and rename. False where something is there already."""
        if target.exists():
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            staging.chmod(0o755)
            shutil.copytree(local, staging, dirs_exist_ok=True)
            try:
                staging.rename(target)
            except OSError:  # another process was first
                if not target.exists():
                    raise
                return False
            return True
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _path(self, relative: str) -> str:
        return f"{self._base.rstrip('/')}/{normalize_path(relative)}"

    def _require_root(self) -> None:
        """A missing bucket must not look like a missing file."""
        bucket = self._base.split("/", 1)[0]
        if urlsplit(self.root).scheme not in ("s3", "s3a", "gs", "gcs") or self._files.exists(bucket):
            return
        try:
            # Who may use a part of it alone is not told whether it is there.
            self._files.ls(self._base, refresh=True)
        except PermissionError:
            return
        except FileNotFoundError as error:
            if urlsplit(self.root).scheme in ("s3", "s3a") and "bucket does not exist" not in str(error):
                return
            raise FileNotFoundError(f"there is no bucket {bucket!r}") from error

    def _list_files(self, path: str) -> list[str]:
        """Paths of the files in the folder of one."""
        try:
            return list(self._files.ls(path.rpartition("/")[0], detail=False, refresh=True))
        except FileNotFoundError:
            return []


def fetch(uri: str, cache: Path, options: Mapping[str, Any] | None = None, wanted: Wanted | None = None) -> Path:
    """The local file or folder of a model; see `penstock_runtime.fetching`, which also keeps it from being removed.

    A `file://` or `pvc://` URI is returned in place. Anything else is copied into the cache, a folder that is this
    caller's own or bounded by no one, under a name made from its content or its version.

    Raises:
        Invalid: UnsupportedStorage, ModelNotFound, StorageDenied, ModelInvalid, or DigestMismatch.
        Unavailable: StorageUnreachable or CacheUnavailable.
    """
    path = find_local(uri, os.environ)
    if path is not None:
        return path
    held, found = fetch_into_cache(uri, ModelCacheSettings(cache), options=options, wanted=wanted)
    with held:
        return held.path / found.lone if found.lone else held.path
