"""The model run directly in this process: what every served answer is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.engines import DEFAULT_ENGINES
from penstock.optimization.recipes import EngineSettings
from penstock.serving.manifest import MANIFEST_NAME, ModelManifest
from penstock_runtime.engines import load_engine


def direct_predictions(folder: Path, images: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class of each image, one image a run.

    Args:
        folder: a model folder whose model has one input and gives scores of classes first.
        images: shape (images, channels, height, width).

    Returns:
        Shape (images,).

    Raises:
        Invalid: the model cannot be loaded here.
    """
    manifest = ModelManifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
    settings = manifest.engine or EngineSettings(name=DEFAULT_ENGINES[manifest.format])
    engine = load_engine(folder / manifest.entrypoint, settings, manifest.signature)
    name, output = manifest.signature.inputs[0].name, manifest.signature.outputs[0].name
    rows = [engine.run({name: images[index : index + 1]})[output] for index in range(len(images))]
    predicted: NDArray[np.int64] = np.concatenate(rows).argmax(axis=1).astype(np.int64)
    return predicted
