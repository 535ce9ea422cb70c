"""Where models, artifacts and reports lie: a folder, S3, or whatever else fsspec has a file system for.

Credentials and endpoints come from the environment, as each library has it (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`), or
from storage options; a URI with them in it is refused.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.manifest import MANIFEST_NAME, ModelManifest
from penstock_runtime.files import sha256_of
from penstock_runtime.filesystems import (
    file_system,
    file_uri,
    is_local,
    local_path,
    safe,
    staged,
    translated,
    write_atomically,
)
from penstock_runtime.signing import SIGNATURE_NAME


class Store:
    """A folder, somewhere. Paths in it are relative, with `/` between their parts.

    Args:
        uri: such as `file:///var/lib/penstock`, `s3://bucket/prefix`, or an absolute path.
        options: of fsspec's file system, over what the environment says.

    Raises:
        Invalid: UnsupportedStorage, for a scheme that is not known or whose library is not installed.
    """

    def __init__(self, uri: str, options: Mapping[str, Any] | None = None) -> None:
        self.root = file_uri(uri)
        self._files, self._base = file_system(self.root, options or {})
        self._local = is_local(self.root)

    def uri(self, relative: str) -> str:
        """The URI of a path in the store.

        Raises:
            Invalid: the path leads out of it.
        """
        return f"{self.root.rstrip('/')}/{safe(relative)}"

    def exists(self, relative: str) -> bool:
        """Whether there is a file or a folder."""
        with translated(self.uri(relative)):
            self._files.invalidate_cache()
            return bool(self._files.exists(self._path(relative)))

    def read(self, relative: str) -> bytes | None:
        """A file's content; None where there is none."""
        with translated(self.uri(relative)):
            try:
                return bytes(self._files.cat_file(self._path(relative)))
            except (FileNotFoundError, IsADirectoryError):
                if not self._local:
                    self._require_root()
                return None

    def write(self, relative: str, body: bytes) -> None:
        """Write a file. Who reads it meanwhile sees the old content or the new, whole."""
        with translated(self.uri(relative)):
            if self._local:
                write_atomically(Path(self._path(relative)), body)
            else:
                self._files.pipe_file(self._path(relative), body)

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
        with translated(target):
            if self._local and self._rename_into_place(local, Path(self._path(relative))):
                return target
        for name in sorted(names, key=lambda each: (each == MANIFEST_NAME, each)):
            self._put_file(local / name, f"{relative}/{name}")
        return target

    def _put_file(self, source: Path, relative: str) -> None:
        with translated(self.uri(relative)):
            if self._local:
                with staged(Path(self._path(relative))) as partial:
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
        return f"{self._base.rstrip('/')}/{safe(relative)}"

    def _require_root(self) -> None:
        """A missing bucket must not look like a missing file."""
        bucket = self._base.split("/", 1)[0]
        if urlsplit(self.root).scheme in ("s3", "s3a", "gs", "gcs") and not self._files.exists(bucket):
            raise FileNotFoundError(f"there is no bucket {bucket!r}")


def fetch(uri: str, cache: Path, options: Mapping[str, Any] | None = None) -> Path:
    """The local file or folder of a model.

    A `file://` URI is returned in place. Anything else is copied into the cache, under a name made from its content: a
    folder's from `manifest.json` and `model.sig`, whose files are checked against it; without a manifest, from names,
    sizes and versions as the store tells them. What is there already is checked and used again. A copy is renamed into
    place when it is whole, so that several processes may fetch the same at once.

    Raises:
        Invalid: UnsupportedStorage, ModelNotFound, StorageDenied, or DigestMismatch for a file that is not what the
            manifest says.
        Unavailable: StorageUnreachable.
    """
    uri = file_uri(uri)
    path = local_path(uri)
    if path is not None:
        if not path.exists():
            raise Invalid(
                Reason.MODEL_NOT_FOUND,
                f"there is nothing at {path} on this node: check storageUri and that the node has this folder mounted",
            )
        return path
    return _Download(uri, options or {}).into(cache)


class _Download:
    """One model in a store that is not this machine's file system."""

    def __init__(self, uri: str, options: Mapping[str, Any]) -> None:
        self._uri = uri.rstrip("/")
        self._files, base = file_system(self._uri, options)
        self._base = base.rstrip("/")
        self._web = urlsplit(uri).scheme in ("http", "https")
        with translated(self._uri):
            self._manifest = self._optional(MANIFEST_NAME)
            signature = self._optional(SIGNATURE_NAME) if self._manifest is not None else None
        self._sums = {} if self._manifest is None else _sums(self._manifest, self._uri)
        with translated(self._uri):
            self._names = self._list(signature)
            self._key = self._content_key(signature)

    def into(self, cache: Path) -> Path:
        """The whole copy in the cache."""
        target = cache / self._key
        found = self._result(target)
        if found.exists():
            if not self._faults(target):
                return found
            self._discard(target)
        cache.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".fetching-", dir=cache))
        try:
            self._copy(staging)
            try:
                staging.rename(target)
            except OSError:  # another process was first, and its copy is as good
                if not found.exists():
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return found

    def _copy(self, folder: Path) -> None:
        for name in self._names or (self._lone,):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            source = f"{self._base}/{name}" if self._names else self._base
            with translated(f"{self._uri}/{name}" if self._names else self._uri):
                self._files.get_file(source, str(target))
        faults = self._faults(folder)
        if faults:
            raise Invalid(
                Reason.DIGEST_MISMATCH,
                f"{self._uri}/{faults[0]} is not what {MANIFEST_NAME} says: it was changed or copied in part; put it there again",
            )

    def _faults(self, folder: Path) -> list[str]:
        """Files that are missing or not what the manifest says."""
        missing = [name for name in self._names or (self._lone,) if not (folder / name).is_file()]
        return missing or [name for name, wanted in self._sums.items() if sha256_of(folder / name) != wanted]

    def _list(self, signature: bytes | None) -> tuple[str, ...]:
        """Files by relative path; none where the URI names a lone file."""
        listed = {MANIFEST_NAME, *self._sums} if self._manifest is not None else set()
        if signature is not None:
            listed.add(SIGNATURE_NAME)
        if self._web:
            return tuple(sorted(listed))
        if self._manifest is None and self._files.isfile(self._base):
            return ()
        found = [str(path) for path in self._files.find(self._base)]
        listed |= {safe(path.removeprefix(self._base).lstrip("/")) for path in found if not path.endswith("/")}
        if not listed:
            raise FileNotFoundError("no such file or folder")
        return tuple(sorted(listed))

    def _content_key(self, signature: bytes | None) -> str:
        digest = hashlib.sha256()
        if self._manifest is not None:
            digest.update(hashlib.sha256(self._manifest).digest() + hashlib.sha256(signature or b"").digest())
            digest.update("\0".join(self._names).encode())
            return f"manifest-{digest.hexdigest()}"
        digest.update(self._uri.encode())
        for name in self._names or ("",):
            path = f"{self._base}/{name}" if name else self._base
            digest.update(f"\0{name}\0{self._files.ukey(path)}".encode())
        return f"listing-{digest.hexdigest()}"

    def _optional(self, name: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(f"{self._base}/{name}"))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    @property
    def _lone(self) -> str:
        return self._base.rsplit("/", 1)[-1]

    def _result(self, target: Path) -> Path:
        return target if self._names else target / self._lone

    @staticmethod
    def _discard(target: Path) -> None:
        """Move a broken copy away first, so that no other process finds half of it."""
        away = Path(tempfile.mkdtemp(prefix=".broken-", dir=target.parent))
        try:
            target.rename(away / target.name)
        finally:
            shutil.rmtree(away, ignore_errors=True)


def _sums(manifest: bytes, uri: str) -> dict[str, str]:
    try:
        files = ModelManifest.model_validate_json(manifest).files
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise Invalid(Reason.MODEL_INVALID, f"{uri}/{MANIFEST_NAME}: {where}: {first['msg']}") from error
    return {safe(name): file.sha256.removeprefix("sha256:") for name, file in files.items()}
