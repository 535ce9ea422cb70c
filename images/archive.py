"""OCI image archives, written without any container tool; `ctr images import` and every OCI tool read them.

The layout is that of the OCI Image Format Specification 1.1 (image-layout.md, config.md, manifest.md).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from images.layers import MEDIA_TYPE, HashingWriter, Layer, write_layer

_EPOCH: Final = "1970-01-01T00:00:00Z"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_CHUNK: Final = 1 << 20
_GZIP_LEVEL: Final = 6


class Compression(StrEnum):
    """How layers are stored in an archive. Not at all is the fastest to write and to import on the same machine."""

    NONE = "none"
    GZIP = "gzip"


@dataclass(frozen=True)
class ImageConfig:
    """What a container of the image runs, unless its pod says otherwise.

    Attributes:
        entrypoint: the program and its first arguments.
        command: arguments that a pod's `args` replace.
        user: `uid:gid`, numeric: Kubernetes can then see that it is not root.
        environment: name → value.
        working_directory: absolute, inside the image.
        labels: the image's annotations, as tools show them.
    """

    entrypoint: tuple[str, ...]
    user: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: str = "/"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WrittenImage:
    """An archive on disk: its manifest's digest, and the bytes of its layers as stored and as unpacked."""

    archive: Path
    name: str
    digest: str
    stored_bytes: int
    unpacked_bytes: int


@dataclass(frozen=True)
class _Blob:
    path: Path | None
    body: bytes
    digest: str
    size: int


def write_image(
    archive: Path,
    name: str,
    layers: Sequence[Layer],
    config: ImageConfig,
    *,
    compression: Compression = Compression.NONE,
    without: frozenset[str] = frozenset(),
) -> WrittenImage:
    """Write one image, named `name` (`repository:tag`), as an archive. The same input gives the same bytes.

    Args:
        archive: the file to write; it appears whole.
        name: the name under which the image is imported.
        layers: lowest first.
        config: what a container of it runs.
        compression: of the layers.
        without: digests of layers to leave out of the archive, because the reader has them from an image imported
            before. The image and its digest are the same.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=f".{archive.name}.") as scratch:
        stored = [_store(layer, compression, Path(scratch)) for layer in layers]
        config_blob = _json_blob(_config(layers, config))
        manifest = _json_blob(_manifest(config_blob, stored, compression, config.labels))
        index = _json_blob(_index(manifest, name))
        partial = Path(scratch, "archive.tar")
        blobs = [config_blob, manifest, *(blob for blob in stored if blob.digest not in without)]
        _write_archive(partial, index.body, blobs)
        partial.replace(archive)
    sizes = {layer.digest: layer.size for layer in layers}
    return WrittenImage(archive, name, manifest.digest, sum(blob.size for blob in stored), sum(sizes.values()))


def write_scratch_image(archive: Path, name: str, tree: Path, config: ImageConfig) -> WrittenImage:
    """Write an image whose one layer is the content of the folder `tree`: for programs that need nothing else.

    Raises:
        Invalid: `tree` holds what no image may; see `images.layers.write_layer`.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=f".{archive.name}.") as scratch:
        return write_image(archive, name, [write_layer(tree, Path(scratch, "layer.tar"))], config)


def canonical(name: str) -> str:
    """An image's name as container runtimes store it: one that names no registry is said to be in Docker Hub's."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def _store(layer: Layer, compression: Compression, scratch: Path) -> _Blob:
    match compression:
        case Compression.NONE:
            return _Blob(layer.blob, b"", layer.digest, layer.size)
        case Compression.GZIP:
            target = scratch / f"{layer.digest.removeprefix('sha256:')}.gz"
            with layer.blob.open("rb") as source, target.open("wb") as file:
                written = HashingWriter(file)
                # No name and time 0: the header must not differ between two runs.
                with gzip.GzipFile("", "wb", _GZIP_LEVEL, written, mtime=0) as packed:
                    while chunk := source.read(_CHUNK):
                        packed.write(chunk)
            return _Blob(target, b"", written.digest, written.size)


def _config(layers: Sequence[Layer], config: ImageConfig) -> dict[str, object]:
    run: dict[str, object] = {
        "Entrypoint": list(config.entrypoint),
        "User": config.user,
        "Env": [f"{name}={value}" for name, value in sorted(config.environment.items())],
        "WorkingDir": config.working_directory,
        "Labels": dict(config.labels),
    }
    if config.command:
        run["Cmd"] = list(config.command)
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": _EPOCH,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        "history": [{"created": _EPOCH, "created_by": "penstock images"} for _ in layers],
    }


def _manifest(
    config: _Blob, stored: Sequence[_Blob], compression: Compression, annotations: Mapping[str, str]
) -> dict[str, object]:
    kind = MEDIA_TYPE if compression is Compression.NONE else f"{MEDIA_TYPE}+{compression.value}"
    return {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": kind, "digest": blob.digest, "size": blob.size} for blob in stored],
        "annotations": dict(annotations),
    }


def _index(manifest: _Blob, name: str) -> dict[str, object]:
    entry = {
        "mediaType": _MANIFEST,
        "digest": manifest.digest,
        "size": manifest.size,
        "platform": {"architecture": "amd64", "os": "linux"},
        "annotations": {
            # containerd names the image by the first, other tools tag it by the second.
            "io.containerd.image.name": canonical(name),
            "org.opencontainers.image.ref.name": name.rsplit(":", 1)[-1],
        },
    }
    return {"schemaVersion": 2, "manifests": [entry]}


def _json_blob(document: Mapping[str, object]) -> _Blob:
    body = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return _Blob(None, body, f"sha256:{hashlib.sha256(body).hexdigest()}", len(body))


def _write_archive(target: Path, index: bytes, blobs: Sequence[_Blob]) -> None:
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        _put(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _put(tar, "index.json", index)
        for digest, blob in {blob.digest: blob for blob in blobs}.items():
            name = f"blobs/sha256/{digest.removeprefix('sha256:')}"
            if blob.path is None:
                _put(tar, name, blob.body)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = blob.size
            with blob.path.open("rb") as file:
                tar.addfile(entry, file)


def _put(tar: tarfile.TarFile, name: str, body: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(body)
    tar.addfile(entry, io.BytesIO(body))
