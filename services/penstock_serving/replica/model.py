"""Finding a model where its URI says, checking that it is what was asked for, and loading it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.optimization.fitting import misfit
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock.serving.manifest import MANIFEST_NAME, ModelFormat, ModelManifest, Signature, TensorSpec
from penstock.serving.settings import ReplicaSettings
from penstock.telemetry import names
from penstock_runtime.engines import DEFAULT_ENGINES, ENGINE_FORMATS, Engine, load_engine
from penstock_runtime.fetching import fetch_apart
from penstock_runtime.files import sha256_of
from penstock_runtime.hardware import probe
from penstock_runtime.model_cache import Held
from penstock_runtime.verifying import verify_apart

_SUFFIXES: Final[Mapping[ModelFormat, str]] = {
    ModelFormat.ONNX: ".onnx",
    ModelFormat.OPENVINO: ".xml",
    ModelFormat.TORCH_EXPORT: ".pt2",
    ModelFormat.LITERT: ".tflite",
}
"""What is served. TorchScript and safetensors come with code: they are converted in the optimizer's sandbox."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run, its digest, and the signature that it is served with."""

    engine: Engine
    digest: str
    signature: Signature
    held: Held
    """Keeps its files in the node's cache."""


@dataclass(frozen=True)
class _Found:
    """What lies where the URI says."""

    manifest: ModelManifest | None
    digest: str
    entrypoint: Path
    format: ModelFormat


def load(settings: ReplicaSettings, done: Callable[[str], None] = lambda _: None) -> LoadedModel:
    """Fetch, verify and load the model of a replica.

    Args:
        settings: the replica's.
        done: told the name of each phase of the start that is over.

    Raises:
        Invalid: why the model is not served, and what to do. UnsupportedStorage, SecretNotFound, StorageDenied or
            ModelNotFound; then DigestMismatch or ModelInvalid; for an optimized one SignatureMissing, KeyNotTrusted,
            SignatureInvalid or HardwareMismatch; last EngineUnavailable.
        Unavailable: StorageUnreachable or CacheUnavailable.
    """
    held = fetch_apart(settings.storage_uri, os.environ, settings.digest, settings.credentials)
    path = held.path
    found = _read(path, settings.model_format)
    if settings.digest is not None and settings.digest != found.digest:
        raise Invalid(
            Reason.DIGEST_MISMATCH,
            f"the model at {settings.storage_uri} has digest {found.digest}, but {settings.digest} was asked for: "
            "restore that model, or set spec.model.digest to the new one",
        )
    if found.manifest is not None:
        _verify_files(path, found.manifest)
        _admit(path, found.manifest, settings)
    done(names.SPAN_PULL)
    declared = found.manifest.signature if found.manifest else None
    engine = load_engine(found.entrypoint, engine_settings(found.manifest, found.format, settings), declared)
    if declared is not None:
        _check_signature(declared, engine.signature)
        engine.signature = declared
    done(names.SPAN_LOAD)
    return LoadedModel(engine, found.digest, engine.signature, held)


def engine_settings(
    manifest: ModelManifest | None, model_format: ModelFormat, settings: ReplicaSettings
) -> EngineSettings:
    """What runs the model.

    The manifest's threads win over those that follow from the replica's CPU: its capacity, and so the batch size and
    the autoscaling target, were measured with them.

    Raises:
        Invalid: ModelInvalid, for an engine that does not load the format.
    """
    if manifest is None or manifest.engine is None:
        return EngineSettings(name=DEFAULT_ENGINES[model_format], threads=settings.engine_threads)
    if model_format not in ENGINE_FORMATS[manifest.engine.name]:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{MANIFEST_NAME} names the engine {manifest.engine.name}, which loads no {model_format}: "
            f"name {DEFAULT_ENGINES[model_format]}, or none",
        )
    return manifest.engine


def _admit(folder: Path, manifest: ModelManifest, settings: ReplicaSettings) -> None:
    """An optimized model must be signed by a trusted key and made for such a machine. Machine code must be optimized."""
    if manifest.optimization is None:
        if manifest.engine is not None and manifest.engine.name is EngineName.TORCH_EXPORT:
            raise Invalid(
                Reason.SIGNATURE_MISSING,
                f"{folder / MANIFEST_NAME} names the engine {EngineName.TORCH_EXPORT}, whose files hold machine code, "
                "but it is not the signed result of an optimization: serve the program itself, or optimize it by a profile",
            )
        return
    verify_apart(folder, settings.trusted_keys)
    lacking = misfit(manifest.optimization.requires, probe())
    if lacking is not None:
        raise Invalid(
            Reason.HARDWARE_MISMATCH,
            f"the model at {settings.storage_uri} was optimized for another machine: {lacking}. "
            "Place replicas where it was measured, or run the profile on this hardware",
        )


def _read(path: Path, model_format: ModelFormat) -> _Found:
    """The manifest if there is one, the digest, and the file to load."""
    manifest_path = path / MANIFEST_NAME
    if not manifest_path.is_file():
        suffix = _suffix(model_format)
        entrypoint = path if path.is_file() else _only(path, suffix)
        if model_format is not ModelFormat.ONNX:
            _check_name(entrypoint, suffix)
        return _Found(None, _digest(entrypoint, model_format), entrypoint, model_format)
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
    entrypoint = path / manifest.entrypoint
    _check_name(entrypoint, _suffix(manifest.format))
    return _Found(manifest, f"sha256:{hashlib.sha256(raw).hexdigest()}", entrypoint, manifest.format)


def _suffix(model_format: ModelFormat) -> str:
    if model_format not in _SUFFIXES:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{model_format} is not served as it is, since it comes with code: give the deployment an optimization "
            f"profile, or convert it to {', '.join(_SUFFIXES)}",
        )
    return _SUFFIXES[model_format]


def _check_name(entrypoint: Path, suffix: str) -> None:
    """An engine tells by the name what is in a file; another kind must not slip in under a harmless format."""
    if entrypoint.suffix != suffix:
        raise Invalid(
            Reason.MODEL_INVALID, f"{entrypoint} does not end in {suffix}, as its format wants: set modelFormat"
        )


def _only(folder: Path, suffix: str) -> Path:
    models = sorted(folder.glob(f"*{suffix}"))
    if len(models) != 1:
        found = f"{len(models)} {suffix} files" if models else f"no {suffix} file"
        raise Invalid(
            Reason.MODEL_NOT_FOUND,
            f"{folder} has no {MANIFEST_NAME} and {found}: put a manifest or exactly one {suffix} file there",
        )
    return models[0]


def _digest(entrypoint: Path, model_format: ModelFormat) -> str:
    """A lone file's SHA-256. OpenVINO's weights lie beside its file: then that of `sha256sum`'s lines of both."""
    weights = entrypoint.with_suffix(".bin")
    if model_format is not ModelFormat.OPENVINO or not weights.is_file():
        return f"sha256:{_sha256(entrypoint)}"
    lines = "".join(f"{_sha256(file)}  {file.name}\n" for file in (weights, entrypoint))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


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
    try:
        return sha256_of(path)
    except OSError as error:
        raise _unreadable(path, error) from error


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
