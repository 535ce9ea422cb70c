"""Reads what an OCI image archive says of itself; `images` writes them."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Image:
    """What an archive says it holds."""

    name: str
    """With registry and tag, as container runtimes store it."""
    digest: str


def read_image(path: Path) -> Image:
    """The name and digest of an archive's first image.

    Raises:
        ValueError: it does not say its name.
    """
    with tarfile.open(path) as archive:
        file = archive.extractfile("index.json")
        assert file is not None
        entry = json.load(file)["manifests"][0]
    name = entry.get("annotations", {}).get("io.containerd.image.name", "")
    if ":" not in name:
        raise ValueError(f"{path}: its index names no image: annotate it with io.containerd.image.name")
    return Image(canonical(name), entry["digest"])


def canonical(name: str) -> str:
    """An image's name as container runtimes store it: those of Docker Hub are said to be there."""
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"
