"""Finding a model where its URI says, checking that it is what was asked for, and loading it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.manifest import MANIFEST_NAME, ModelManifest, Signature, TensorSpec
from penstock.serving.settings import ReplicaSettings
from penstock_runtime.engines import ENGINES, Engine

_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run, its digest, and the signature that it is served with."""

    engine: Engine
    digest: str
    signature: Signature


def load(settings: ReplicaSettings) -> LoadedModel:
    """Find, verify and load the model of a replica.

    Raises:
        Invalid: UnsupportedStorage, ModelNotFound, DigestMismatch or ModelInvalid, each saying what to do.
    """
    path = locate(settings.storage_uri)
    manifest, digest, entrypoint = _read(path)
    if settings.digest is not None and settings.digest != digest:
        raise Invalid(
            Reason.DIGEST_MISMATCH,
            f"the model at {settings.storage_uri} has digest {digest}, but {settings.digest} was asked for: "
            "restore that model, or set spec.model.digest to the new one",
        )
    if manifest is not None:
        _verify_files(path, manifest)
    engine = ENGINES[settings.model_format](entrypoint, settings.engine_threads)
    if manifest is not None:
        _check_signature(manifest.signature, engine.signature)
        engine.signature = manifest.signature
    return LoadedModel(engine, digest, engine.signature)


def locate(storage_uri: str) -> Path:
    """The local path of a `file://` URI.

    Raises:
        Invalid: UnsupportedStorage or ModelNotFound.
    """
    parts = urlsplit(storage_uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise Invalid(
            Reason.UNSUPPORTED_STORAGE,
            f"storageUri {storage_uri!r} is not supported: write file:// and an absolute path, such as file:///models/digits/1",
        )
    path = Path(unquote(parts.path))
    if not path.exists():
        raise Invalid(
            Reason.MODEL_NOT_FOUND,
            f"there is nothing at {path} on the replica's node: check storageUri and that the node has this folder mounted",
        )
    return path


def _read(path: Path) -> tuple[ModelManifest | None, str, Path]:
    """The manifest if there is one, the digest, and the file to load."""
    if path.is_file():
        return None, f"sha256:{_sha256(path)}", path
    manifest_path = path / MANIFEST_NAME
    if manifest_path.is_file():
        try:
            raw = manifest_path.read_bytes()
        except OSError as error:
            raise _unreadable(manifest_path, error) from error
        try:
            manifest = ModelManifest.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the document"
            raise Invalid(Reason.MODEL_INVALID, f"{manifest_path}: {where}: {first['msg']}") from error
        if manifest.entrypoint not in manifest.files:
            raise Invalid(
                Reason.MODEL_INVALID, f"{manifest_path}: entrypoint {manifest.entrypoint!r} is not among its files"
            )
        return manifest, f"sha256:{hashlib.sha256(raw).hexdigest()}", path / manifest.entrypoint
    models = sorted(path.glob("*.onnx"))
    if len(models) != 1:
        found = f"{len(models)} .onnx files" if models else "no .onnx file"
        raise Invalid(
            Reason.MODEL_NOT_FOUND,
            f"{path} has no {MANIFEST_NAME} and {found}: put a manifest or exactly one .onnx file there",
        )
    return None, f"sha256:{_sha256(models[0])}", models[0]


def _verify_files(folder: Path, manifest: ModelManifest) -> None:
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise Invalid(
                Reason.MODEL_INVALID, f"{folder / MANIFEST_NAME}: file {name!r} is outside the model's folder"
            )
        if not path.is_file():
            raise Invalid(
                Reason.MODEL_NOT_FOUND, f"{path} is in {MANIFEST_NAME} but missing: copy the whole folder again"
            )
        found = _sha256(path)
        if found != expected.sha256.removeprefix("sha256:"):
            raise Invalid(
                Reason.DIGEST_MISMATCH,
                f"{path} has SHA-256 {found}, but {MANIFEST_NAME} says {expected.sha256}: "
                "it was changed or copied in part; copy the folder again",
            )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def _unreadable(path: Path, error: OSError) -> Invalid:
    return Invalid(Reason.MODEL_NOT_FOUND, f"{path} cannot be read: {error.strerror}")


def _check_signature(declared: Signature, actual: Signature) -> None:
    """The manifest may fix axes that the model leaves open, and nothing else.

    Raises:
        Invalid: ModelInvalid, with the first difference.
    """
    for what, wanted, have in (
        ("input", declared.inputs, actual.inputs),
        ("output", declared.outputs, actual.outputs),
    ):
        known = {spec.name: spec for spec in have}
        if set(known) != {spec.name for spec in wanted}:
            raise Invalid(
                Reason.MODEL_INVALID,
                f"{MANIFEST_NAME} declares {what}s {[spec.name for spec in wanted]}, but the model has {list(known)}",
            )
        for spec in wanted:
            _check_tensor(what, spec, known[spec.name])


def _check_tensor(what: str, declared: TensorSpec, actual: TensorSpec) -> None:
    fits = len(declared.shape) == len(actual.shape) and all(
        mine in (axis, -1) or axis == -1 if what == "output" else axis in (-1, mine)
        for mine, axis in zip(declared.shape, actual.shape, strict=True)
    )
    if declared.datatype is not actual.datatype or not fits:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{MANIFEST_NAME} declares {what} '{declared.name}' as {declared.datatype}{list(declared.shape)}, "
            f"but the model has {actual.datatype}{list(actual.shape)}",
        )
