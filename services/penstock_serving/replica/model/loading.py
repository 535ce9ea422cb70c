"""Finding a model where its URI says, checking that it is what was asked for, and loading it."""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.api.conditions import Reason
from penstock.engines import DEFAULT_ENGINES, ENGINES
from penstock.errors import Invalid
from penstock.optimization.fitting import why_unfit
from penstock.optimization.recipes import EngineSettings
from penstock.serving.arguments import changed_message
from penstock.serving.control import ReplicaSettings
from penstock.serving.manifest import MANIFEST_NAME, ModelFormat, ModelManifest, Signature, TensorSpec
from penstock.telemetry import names
from penstock_runtime.digests import ModelDigest
from penstock_runtime.engines import Engine, load_engine
from penstock_runtime.fetching import fetch_in_child
from penstock_runtime.files import sha256_of
from penstock_runtime.hardware import probe
from penstock_runtime.joining import Trial, prove
from penstock_runtime.model_cache import HeldModel
from penstock_runtime.verifying import verify_in_child
from penstock_serving.replica.model.location import apart, check_listed, locate, unchanging, wanted_of

logger = logging.getLogger(__name__)
_FILE_OPTIONS: Final = frozenset({"engineCache", "importPath", "pythonPath"})
"""Options of engines that name files, from which code or machine code is loaded."""
_ANEW: Final = "delete the OptimizationRun, so that it is made anew"


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run, its digest, and the signature that it is served with."""

    engine: Engine
    digest: str
    signature: Signature
    held: HeldModel
    """Keeps its files in the node's cache."""
    trial: Trial
    """Whether and how requests are joined."""


class ModelChanged(Invalid):
    """The model was replaced since the revision's first replica loaded it.

    Args:
        found: digest of what is there now.
        digest: of the revision's model.
        revision: its name.
    """

    def __init__(self, found: str, digest: str, revision: str) -> None:
        super().__init__(Reason.MODEL_CHANGED, changed_message(found, digest, revision))
        self.found = found


def load(settings: ReplicaSettings, done: Callable[[str], None] = lambda _: None) -> LoadedModel:
    """Fetch, verify and load the model of a replica.

    Args:
        settings: the replica's.
        done: told the name of each phase of the start that is over.

    Raises:
        Invalid: why the model is not served, and what to do. UnsupportedStorage, SecretNotFound, StorageDenied or
            ModelNotFound; then DigestMismatch, ModelChanged or ModelInvalid; for an optimized one SignatureMissing, KeyNotTrusted,
            SignatureInvalid or HardwareMismatch; last EngineUnavailable.
        Unavailable: StorageUnreachable or CacheUnavailable.
    """
    wanted = wanted_of(settings.model_format, settings.version)
    held = fetch_in_child(settings.storage_uri, os.environ, settings.digest, settings.credentials, wanted)
    model, cached = locate(held.path, settings.model_format, settings.version), bool(held.key)
    with unchanging(model, cached=cached):
        digest = model.digest()
        check_digest(digest, settings)
        check_revision(digest, settings)
        if model.manifest is not None:
            _verify_files(model.path, model.manifest)
            check_listed(model)
            _admit(model.path, model.manifest, settings)
        elif _must_be_signed(settings):
            raise Invalid(
                Reason.SIGNATURE_MISSING,
                f"{model.path} has no {MANIFEST_NAME}, but a signed model is to be served: {_ANEW}",
            )
        done(names.SPAN_PULL)
        declared = model.manifest.signature if model.manifest else None
        chosen = engine_settings(model.manifest, model.format, settings)
        held, entrypoint = apart(model, digest, held, os.environ)
        engine = load_engine(entrypoint, chosen, declared, trusted=_is_signed(model.manifest, settings))
    if declared is not None:
        engine.signature = _agreed(declared, engine.signature)
    done(names.SPAN_LOAD)
    said = model.manifest.joining if model.manifest else None
    trial = prove(engine, chosen, settings.batching.max_batch_size, said)
    logger.info("requests are %s: %s", "joined" if trial.joining else "not joined", trial.reason)
    return LoadedModel(engine, digest.value, engine.signature, held, trial)


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
    if model_format not in ENGINES[manifest.engine.name].formats:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{MANIFEST_NAME} names the engine {manifest.engine.name}, which loads no {model_format}: "
            f"name {DEFAULT_ENGINES[model_format]}, or none",
        )
    return manifest.engine


def _must_be_signed(settings: ReplicaSettings) -> bool:
    """Whoever declared the model decides, not its manifest, which comes with it."""
    if settings.require_signature is None:
        return bool(settings.trusted_keys)
    return settings.require_signature


def _is_signed(manifest: ModelManifest | None, settings: ReplicaSettings) -> bool:
    """Whether `_admit` has verified a signature."""
    return _must_be_signed(settings) or (manifest is not None and manifest.optimization is not None)


def _admit(folder: Path, manifest: ModelManifest, settings: ReplicaSettings) -> None:
    """An optimized model must be signed by a trusted key and made for such a machine. Machine code must be optimized."""
    if _must_be_signed(settings):
        verify_in_child(folder, settings.trusted_keys)
        _check_owner(folder, manifest, settings)
    elif manifest.optimization is not None:
        verify_in_child(folder, settings.trusted_keys)
    if manifest.optimization is None:
        plans = manifest.engine is not None and ENGINES[manifest.engine.name].plans
        if plans and not _is_signed(manifest, settings) and _holds_plan(folder / manifest.entrypoint):
            raise Invalid(
                Reason.MODEL_INVALID,
                f"{manifest.entrypoint} holds a part that was compiled for an accelerator (EPContext), which is machine code, and "
                "nobody signed it: export the model without it",
            )
        files = sorted(_FILE_OPTIONS & set(manifest.engine.options)) if manifest.engine is not None else []
        if files and not _is_signed(manifest, settings):
            raise Invalid(
                Reason.MODEL_INVALID,
                f"{folder / MANIFEST_NAME} sets the engine's option {files[0]}, which names files of the node that may hold "
                "code, and nobody signed it: leave the option out",
            )
        return
    lacking = why_unfit(manifest.optimization.requires, probe())
    if lacking is not None:
        raise Invalid(
            Reason.HARDWARE_MISMATCH,
            f"the model at {settings.storage_uri} was optimized for another machine: {lacking}. "
            "Place replicas where it was measured, or run the profile on this hardware",
        )


def _holds_plan(file: Path) -> bool:
    """Whether an ONNX file has the operator by which compiled code travels in it; also where it only speaks of it."""
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as body:
        return body.find(b"EPContext") >= 0


def _check_owner(folder: Path, manifest: ModelManifest, settings: ReplicaSettings) -> None:
    """What the operator declared was made for this very deployment."""
    made = manifest.optimization
    said = (made.namespace, manifest.name) if made is not None else (None, manifest.name)
    if settings.require_signature and said != (settings.namespace, settings.model):
        raise Invalid(
            Reason.SIGNATURE_INVALID,
            f"{folder / MANIFEST_NAME} was signed for {said[0] or 'no namespace'}/{said[1]}, not for "
            f"{settings.namespace}/{settings.model}: {_ANEW}",
        )


def check_digest(found: ModelDigest, settings: ReplicaSettings) -> None:
    """Hold the model against the digest that was asked for.

    Raises:
        Invalid: DigestMismatch.
    """
    if settings.digest is None or settings.digest == found.value:
        return
    if found.beside and settings.digest == found.alone:
        others = f"{len(found.beside)} files" if len(found.beside) > 1 else found.beside[0]
        raise Invalid(
            Reason.DIGEST_MISMATCH,
            f"{settings.digest} is the digest of {found.entrypoint} alone, but {others} beside it serves, too. The digest of "
            f"the whole is {found.value}, as `{found.command}` prints it: set spec.model.digest to that",
        )
    raise Invalid(
        Reason.DIGEST_MISMATCH,
        f"the model at {settings.storage_uri} has digest {found.value}, but {settings.digest} was asked for: "
        "restore that model, or set spec.model.digest to the new one",
    )


def check_revision(found: ModelDigest, settings: ReplicaSettings) -> None:
    """Hold the model against the one that the revision's other replicas serve.

    Raises:
        ModelChanged: it is another.
    """
    if settings.revision_digest not in (None, found.value):
        raise ModelChanged(found.value, settings.revision_digest or "", settings.revision)


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


def _agreed(declared: Signature, actual: Signature) -> Signature:
    """What the manifest declares, with what only the model says: the inputs that may be left out, and its classes.

    The manifest may fix axes that the model leaves open, and nothing else.

    Raises:
        Invalid: ModelInvalid, with the first difference.
    """
    for what, wanted, have in (
        ("input", declared.inputs, actual.inputs),
        ("output", declared.outputs, actual.outputs),
    ):
        known = {spec.name: spec for spec in have}
        if what == "input":
            named = {spec.name for spec in wanted}
            known |= {spec.name: spec for spec in actual.optional if spec.name in named}
        if set(known) != {spec.name for spec in wanted}:
            raise Invalid(
                Reason.MODEL_INVALID,
                f"{MANIFEST_NAME} declares {what}s {[spec.name for spec in wanted]}, but the model has {list(known)}",
            )
        for spec in wanted:
            _check_tensor(what, spec, known[spec.name])
    required = {spec.name for spec in declared.inputs}
    classes = {spec.name: spec.classes for spec in actual.outputs}
    return declared.model_copy(
        update={
            "optional": tuple(spec for spec in actual.optional if spec.name not in required),
            "outputs": tuple(spec.model_copy(update={"classes": classes[spec.name]}) for spec in declared.outputs),
        }
    )


def _check_tensor(what: str, declared: TensorSpec, actual: TensorSpec) -> None:
    fits = actual.any_rank or (
        len(declared.shape) == len(actual.shape)
        and all(
            mine in (axis, -1) or axis == -1 if what == "output" else axis in (-1, mine)
            for mine, axis in zip(declared.shape, actual.shape, strict=True)
        )
    )
    if declared.datatype is not actual.datatype or not fits:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{MANIFEST_NAME} declares {what} '{declared.name}' as {declared.datatype}{list(declared.shape)}, "
            f"but the model has {actual.datatype}{list(actual.shape)}",
        )
