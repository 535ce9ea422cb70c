"""Whether a model is what was asked for: its digest, its files, its signature, and the tensors that it declares."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

from penstock.api.conditions import Reason
from penstock.engines import ENGINES
from penstock.errors import Invalid
from penstock.optimization.fitting import why_unfit
from penstock.serving.arguments import changed_message
from penstock.serving.control import ReplicaSettings
from penstock.serving.manifest import MANIFEST_NAME, ModelManifest, Signature, TensorSpec
from penstock_runtime.digests import ModelDigest
from penstock_runtime.files import sha256_of
from penstock_runtime.hardware import probe
from penstock_runtime.verifying import verify_in_child

_FILE_OPTIONS: Final = frozenset({"engineCache", "importPath", "pythonPath"})
"""Options of engines that name files, from which code or machine code is loaded."""
ANEW: Final = "delete the OptimizationRun, so that it is made anew"


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


def requires_signature(settings: ReplicaSettings) -> bool:
    """Whoever declared the model decides, not its manifest, which comes with it."""
    if settings.require_signature is None:
        return bool(settings.trusted_keys)
    return settings.require_signature


def is_signed(manifest: ModelManifest | None, settings: ReplicaSettings) -> bool:
    """Whether `admit` has verified a signature."""
    return requires_signature(settings) or (manifest is not None and manifest.optimization is not None)


def admit(folder: Path, manifest: ModelManifest, settings: ReplicaSettings) -> None:
    """An optimized model must be signed by a trusted key and made for such a machine. Machine code must be optimized.

    Raises:
        Invalid: SignatureMissing, KeyNotTrusted, SignatureInvalid, ModelInvalid or HardwareMismatch.
    """
    if requires_signature(settings):
        verify_in_child(folder, settings.trusted_keys)
        _check_owner(folder, manifest, settings)
    elif manifest.optimization is not None:
        verify_in_child(folder, settings.trusted_keys)
    if manifest.optimization is None:
        plans = manifest.engine is not None and ENGINES[manifest.engine.name].plans
        if plans and not is_signed(manifest, settings) and _holds_plan(folder / manifest.entrypoint):
            raise Invalid(
                Reason.MODEL_INVALID,
                f"{manifest.entrypoint} holds a part that was compiled for an accelerator (EPContext), which is machine code, and "
                "nobody signed it: export the model without it",
            )
        files = sorted(_FILE_OPTIONS & set(manifest.engine.options)) if manifest.engine is not None else []
        if files and not is_signed(manifest, settings):
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
            f"{settings.namespace}/{settings.model}: {ANEW}",
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


def verify_files(folder: Path, manifest: ModelManifest) -> None:
    """Hold every file against the manifest.

    Raises:
        Invalid: ModelInvalid, ModelNotFound or DigestMismatch.
    """
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
        raise _unreadable_error(path, error) from error


def _unreadable_error(path: Path, error: OSError) -> Invalid:
    return Invalid(Reason.MODEL_NOT_FOUND, f"{path} cannot be read: {error.strerror}")


def agree(declared: Signature, actual: Signature) -> Signature:
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
