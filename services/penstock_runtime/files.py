"""What a file is, told by its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.manifest import ModelFile
from penstock.serving.versions import Wanted, version_folder


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_file(path: Path) -> ModelFile:
    """A file's SHA-256 and size in bytes."""
    return ModelFile(sha256=sha256_of(path), size_bytes=path.stat().st_size)


def describe_folder(folder: Path, leave_out: Iterable[str] = ()) -> dict[str, ModelFile]:
    """Every file under a folder, by relative path."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: describe_file(path) for name, path in named.items() if name not in set(leave_out)}


def resolve_version(path: Path, wanted: Wanted) -> Path:
    """Where a model is: the path itself, or the folder of a version below it.

    Raises:
        Invalid: ModelNotFound, see `penstock.serving.versions`; ModelInvalid for a link out of the folder.
    """
    if not path.is_dir():
        return path
    try:
        entries = [(each.name, each.is_dir()) for each in path.iterdir()]
    except OSError as error:
        raise Invalid(Reason.MODEL_NOT_FOUND, f"{path} cannot be read: {error.strerror}") from error
    files = (name for name, is_folder in entries if not is_folder)
    found = version_folder(files, (name for name, is_folder in entries if is_folder), wanted, str(path))
    if found is None:
        return path
    if not (path / found).resolve().is_relative_to(path.resolve()):
        raise Invalid(Reason.MODEL_INVALID, f"{path / found} is a link out of its folder: put the version itself there")
    return path / found
