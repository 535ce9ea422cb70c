"""The digest of a model without a manifest: over every byte that serves.

Of a file that is all of the model it is that file's SHA-256. Where other files serve with it (the weights that an `.onnx`
names, the `.bin` of an OpenVINO `.xml`), it is the SHA-256 of the lines that `sha256sum` prints for all of them, by name:

    sha256sum model.onnx weights.bin | LC_ALL=C sort -k 2 | sha256sum
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.manifest import ModelFormat
from penstock_runtime.files import sha256_of
from penstock_runtime.onnx_files import external_files

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class ModelDigest:
    """What a model is, told by its bytes."""

    value: str
    """`sha256:` and 64 hex digits, of all that serves."""
    alone: str
    """Likewise, of the entry point alone."""
    entrypoint: str
    """Its name."""
    beside: tuple[str, ...] = ()
    """Files that serve with it, relative to its folder."""

    @property
    def command(self) -> str:
        """What prints the same digest."""
        if not self.beside:
            return f"sha256sum {self.entrypoint}"
        more = " …" if len(self.beside) > _NAMED else ""
        return f"sha256sum {self.entrypoint} {' '.join(self.beside[:_NAMED])}{more} | LC_ALL=C sort -k 2 | sha256sum"


def serving_files(entrypoint: Path, model_format: ModelFormat) -> tuple[str, ...]:
    """Files that serve with an entry point, relative to its folder and by name. All are there, and in that folder.

    Raises:
        Invalid: ModelInvalid for a file that cannot be read as its format, or leads out of the folder; ModelNotFound for
            one that is missing.
    """
    try:
        names = named_files(entrypoint, model_format)
    except OSError as error:
        raise _unreadable_error(entrypoint, error) from error
    folder = entrypoint.parent.resolve()
    for name in names:
        file = entrypoint.parent / name
        if not file.resolve().is_relative_to(folder):
            raise Invalid(
                Reason.MODEL_INVALID,
                f"{entrypoint.name} keeps weights in {name}, a link out of its folder: put the file itself there",
            )
        if not file.is_file():
            raise Invalid(
                Reason.MODEL_NOT_FOUND,
                f"{file} is missing, in which {entrypoint.name} keeps weights: put it beside the model, as it was exported",
            )
    return names


def named_files(entrypoint: Path, model_format: ModelFormat) -> tuple[str, ...]:
    """As `serving_files`; those that an ONNX file names need not be there.

    Raises:
        Invalid: ModelInvalid.
        OSError: it cannot be read.
    """
    match model_format:
        case ModelFormat.ONNX:
            return external_files(entrypoint)
        case ModelFormat.OPENVINO:
            weights = entrypoint.with_suffix(".bin")
            return (weights.name,) if weights.is_file() else ()
        case _:
            return ()


def digest_of(entrypoint: Path, model_format: ModelFormat) -> ModelDigest:
    """The digest of a model that has no manifest.

    Raises:
        Invalid: see `serving_files`; ModelNotFound for what cannot be read.
    """
    beside = serving_files(entrypoint, model_format)
    try:
        sums = {name: sha256_of(entrypoint.parent / name) for name in (entrypoint.name, *beside)}
    except OSError as error:
        raise _unreadable_error(entrypoint, error) from error
    alone = sums[entrypoint.name]
    lines = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums, key=str.encode))
    value = hashlib.sha256(lines.encode()).hexdigest() if beside else alone
    return ModelDigest(f"sha256:{value}", f"sha256:{alone}", entrypoint.name, beside)


def _unreadable_error(path: Path, error: OSError) -> Invalid:
    return Invalid(Reason.MODEL_NOT_FOUND, f"{error.filename or path} cannot be read: {error.strerror}")
