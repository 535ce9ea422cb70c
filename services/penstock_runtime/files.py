"""What a file is, told by its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from penstock.serving.manifest import ModelFile


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
