"""Where a built demo model lies, and the key under which it may be used again. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.serving.manifest import MANIFEST_NAME, ModelManifest

BUILT_WITH = ("torch", "onnx", "onnxscript", "scikit-learn", "numpy")
"""Distributions whose versions can change the model."""
_SOURCES = ("digits.py", "export.py")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Images that training never saw, with their labels."""

    images: NDArray[np.float32]
    """Shape (images, 1, 8, 8), from 0 to 1."""
    labels: NDArray[np.int64]
    """Shape (images,), from 0 to 9."""


@dataclass(frozen=True, slots=True)
class DigitsArtifact:
    """A trained digits model on disk: the model folder, and the held-out images beside it."""

    root: Path

    @property
    def model_folder(self) -> Path:
        """The folder with `manifest.json` and `model.onnx`."""
        return self.root / "model"

    @property
    def held_out_file(self) -> Path:
        """The held-out images and labels, as a NumPy archive."""
        return self.root / "held-out.npz"

    def exists(self) -> bool:
        """Whether both parts are there. They appear at once, by a rename."""
        return (self.model_folder / MANIFEST_NAME).is_file() and self.held_out_file.is_file()

    def manifest(self) -> ModelManifest:
        """The model's manifest.

        Raises:
            FileNotFoundError: it has not been built.
            pydantic.ValidationError: the file is not a manifest.
        """
        return ModelManifest.model_validate_json((self.model_folder / MANIFEST_NAME).read_bytes())

    def held_out(self) -> HeldOut:
        """The held-out images.

        Raises:
            FileNotFoundError: it has not been built.
        """
        with np.load(self.held_out_file, allow_pickle=False) as archive:
            return HeldOut(archive["images"].astype(np.float32), archive["labels"].astype(np.int64))


def digits_artifact(cache: Path) -> DigitsArtifact:
    """The place in a cache folder for what the installed code and libraries build."""
    return DigitsArtifact(cache / f"digits-{_key(_source_bytes(), _versions())[:16]}")


def _key(sources: dict[str, bytes], versions: dict[str, str]) -> str:
    """SHA-256 over names and contents of the building code and the versions of its libraries, in hex."""
    digest = hashlib.sha256()
    for name, body in sorted(sources.items()):
        digest.update(f"{name}:{hashlib.sha256(body).hexdigest()}\n".encode())
    for name, version in sorted(versions.items()):
        digest.update(f"{name}=={version}\n".encode())
    return digest.hexdigest()


def _source_bytes() -> dict[str, bytes]:
    package = resources.files("penstock_optimizer")
    return {name: (package / name).read_bytes() for name in _SOURCES}


def _versions() -> dict[str, str]:
    """Versions of the installed libraries; one that is absent cannot have built anything, and says so when imported."""
    found: dict[str, str] = {}
    for name in BUILT_WITH:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
