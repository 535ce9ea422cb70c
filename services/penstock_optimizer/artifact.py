"""Where a built demo model lies, and the key under which it may be used again. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata, resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.serving.manifest import MANIFEST_NAME, ModelManifest

BUILT_WITH = ("torch", "onnx", "onnxscript", "safetensors", "scikit-learn", "numpy")
"""Distributions whose versions can change the model."""
INPUT_NAME = "image"
OUTPUT_NAME = "logits"
LABELS_NAME = "labels"
_SOURCES = ("artifact.py", "digits.py", "building/export.py")


class Split(StrEnum):
    """The parts of the data. No two share an image."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    """From which a quantization learns activation ranges. The network itself may have been trained on these too."""
    VALIDATION = "validation"
    """Decides between candidates."""
    TEST = "test"
    """Held out: only for figures that are shown."""


@dataclass(frozen=True, slots=True)
class Images:
    """Images and their labels."""

    images: NDArray[np.float32]
    """Shape (images, 1, 8, 8), from 0 to 1."""
    labels: NDArray[np.int64]
    """Shape (images,), from 0 to 9."""


@dataclass(frozen=True, slots=True)
class DigitsArtifact:
    """A trained digits model on disk: the model folder, the torch weights that it was exported from, and the data."""

    root: Path

    @property
    def model_folder(self) -> Path:
        """The folder with `manifest.json` and `model.onnx`."""
        return self.root / "model"

    @property
    def source_folder(self) -> Path:
        """The folder with the weights, for those who change the torch module itself."""
        return self.root / "source"

    @property
    def weights_file(self) -> Path:
        """Safetensors of the module that `penstock_optimizer.digits:network` gives, untrained."""
        return self.source_folder / "model.safetensors"

    @property
    def data_folder(self) -> Path:
        """The folder with a `.npz` for each `Split`, whose arrays are `image` and `labels`."""
        return self.root / "data"

    def split_file(self, split: Split) -> Path:
        """The NumPy archive of one part of the data."""
        return self.data_folder / f"{split}.npz"

    def exists(self) -> bool:
        """Whether all parts are there. They appear at once, by a rename."""
        files = (self.model_folder / MANIFEST_NAME, self.weights_file, *(self.split_file(split) for split in Split))
        return all(file.is_file() for file in files)

    def manifest(self) -> ModelManifest:
        """The model's manifest.

        Raises:
            FileNotFoundError: it has not been built.
            pydantic.ValidationError: the file is not a manifest.
        """
        return ModelManifest.model_validate_json((self.model_folder / MANIFEST_NAME).read_bytes())

    def images(self, split: Split) -> Images:
        """One part of the data.

        Raises:
            FileNotFoundError: it has not been built.
        """
        with np.load(self.split_file(split), allow_pickle=False) as archive:
            return Images(archive[INPUT_NAME].astype(np.float32), archive[LABELS_NAME].astype(np.int64))

    def test_images(self) -> Images:
        """The test images, which neither training nor any choice ever saw.

        Raises:
            FileNotFoundError: it has not been built.
        """
        return self.images(Split.TEST)


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
