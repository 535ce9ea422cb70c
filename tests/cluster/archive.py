"""Writes and reads OCI image archives, byte for byte the same for the same files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EPOCH = "1970-01-01T00:00:00Z"
_TYPE = "application/vnd.oci.image"


@dataclass(frozen=True)
class Image:
    """What an archive says it holds."""

    name: str
    """With registry and tag, as containerd stores it."""
    digest: str


def write_archive(path: Path, name: str, files: Mapping[str, Path | bytes], config: Mapping[str, Any]) -> None:
    """Write an image of one layer, for this kind of machine.

    Args:
        path: the archive; replaced at once when it is whole.
        name: full name with registry and tag.
        files: what is at which absolute path; all executable, owned by root.
        config: the image's `config`, such as its Entrypoint.
    """
    layer = _layer(files)
    platform = {"architecture": "arm64" if os.uname().machine == "aarch64" else "amd64", "os": "linux"}
    rootfs = {"type": "layers", "diff_ids": [_digest(layer)]}
    image = _json({**platform, "created": _EPOCH, "config": config, "rootfs": rootfs, "history": [{"created": _EPOCH}]})
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}.manifest.v1+json",
            "config": _descriptor(f"{_TYPE}.config.v1+json", image),
            "layers": [_descriptor(f"{_TYPE}.layer.v1.tar", layer)],
        }
    )
    annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    entry = _descriptor(f"{_TYPE}.manifest.v1+json", manifest) | {"annotations": annotations, "platform": platform}
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', 0o644)
        _add(archive, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}), 0o644)
        for blob in (image, manifest, layer):
            _add(archive, f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}", blob, 0o644)
    partial.rename(path)


def read_image(path: Path) -> Image:
    """The name and digest of an archive's first image.

    Raises:
        ValueError: it does not say its name.
    """
    with tarfile.open(path) as archive:
        file = archive.extractfile("index.json")
        assert file is not None
        entry = json.load(file)["manifests"][0]
    annotations = entry.get("annotations", {})
    name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name", "")
    if ":" not in name:
        raise ValueError(f"{path}: its index names no image: annotate it with io.containerd.image.name")
    return Image(canonical(name), entry["digest"])


def canonical(name: str) -> str:
    """An image's name as runtimes store it: Docker Hub's names are said to be so."""
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"


def _layer(files: Mapping[str, Path | bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as layer:
        for name, content in sorted(files.items()):
            _add(layer, name.lstrip("/"), content if isinstance(content, bytes) else content.read_bytes(), 0o755)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    archive.addfile(info, io.BytesIO(content))


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
