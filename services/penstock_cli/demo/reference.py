"""The model run directly by ONNX Runtime in this process: what every served answer is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray


def direct_predictions(model: Path, images: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class of each image, one image a run.

    Args:
        model: an ONNX file with one input and one output.
        images: shape (images, channels, height, width).

    Returns:
        Shape (images,).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    rows = [session.run(None, {entry.name: images[i : i + 1]})[0] for i in range(len(images))]
    predicted: NDArray[np.int64] = np.concatenate(rows).argmax(axis=1).astype(np.int64)
    return predicted
