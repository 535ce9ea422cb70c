"""The demo model: a small CNN on scikit-learn's bundled handwritten digits (1,797 real images of 8 by 8 pixels).

    python -m penstock_optimizer.digits CACHE_FOLDER

trains it (a few seconds), exports it, and prints where it lies. A second call finds it there.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from penstock_optimizer.artifact import DigitsArtifact, HeldOut, digits_artifact
from penstock_optimizer.export import ExportRequest, export_onnx

INPUT_NAME = "image"
OUTPUT_NAME = "logits"
_BRIGHTEST = 16.0
"""scikit-learn's pixels go from 0 to 16."""


@dataclass(frozen=True, slots=True)
class Training:
    """How to train."""

    seed: int = 0
    epochs: int = 25
    batch_size: int = 64
    learning_rate: float = 2e-3
    held_out_images: int = 450
    threads: int = 2


@dataclass(frozen=True, slots=True)
class Split:
    """The data in two parts that share no image."""

    train: HeldOut
    held_out: HeldOut


def split(training: Training) -> Split:
    """The digits, split with each digit's share kept in both parts."""
    digits = load_digits()
    images = (digits.data / _BRIGHTEST).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = digits.target.astype(np.int64)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=training.held_out_images, random_state=training.seed, stratify=labels
    )
    return Split(HeldOut(train_images, train_labels), HeldOut(test_images, test_labels))


def network() -> nn.Sequential:
    """The untrained network: (batch, 1, 8, 8) images to (batch, 10) logits; 37,898 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train(data: HeldOut, training: Training) -> nn.Sequential:
    """Train from scratch with Adam on cross-entropy. The same seed and libraries give the same weights."""
    torch.manual_seed(training.seed)
    torch.set_num_threads(training.threads)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), training.learning_rate)
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    for _ in range(training.epochs):
        order = torch.randperm(len(images))
        for start in range(0, len(images), training.batch_size):
            rows = order[start : start + training.batch_size]
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(images[rows]), labels[rows]))
            optimizer.step()
    return model.eval()


def accuracy(model: nn.Module, data: HeldOut) -> float:
    """The share of images, from 0 to 1, whose largest logit is the label's."""
    with torch.no_grad():
        predicted = model(torch.from_numpy(data.images)).argmax(dim=1).numpy()
    return float((predicted == data.labels).mean())


def build(cache: Path, training: Training | None = None) -> DigitsArtifact:
    """Train and export unless the cache has the result.

    Args:
        cache: folder that holds one folder for each version of the code and its libraries.
        training: how to train; a value other than the default builds anew, whatever the cache holds.

    Returns:
        Where the model and the held-out images lie.

    Raises:
        Invalid: the exported model does not compute what torch does.
    """
    artifact = digits_artifact(cache)
    if training is None and artifact.exists():
        return artifact
    how = training or Training()
    data = split(how)
    model = train(data.train, how)
    cache.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".digits-", dir=cache))
    try:
        _write(DigitsArtifact(scratch), model, data.held_out, how)
        _move_into_place(scratch, artifact)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return artifact


def _write(artifact: DigitsArtifact, model: nn.Sequential, held_out: HeldOut, training: Training) -> None:
    request = ExportRequest(
        name="digits",
        module=model,
        example=torch.from_numpy(held_out.images[:64]),
        input_name=INPUT_NAME,
        output_name=OUTPUT_NAME,
        annotations={
            "penstock.dev/dataset": "scikit-learn digits",
            "penstock.dev/held-out-accuracy": f"{accuracy(model, held_out):.4f}",
            "penstock.dev/seed": str(training.seed),
            "penstock.dev/torch": torch.__version__,
        },
    )
    export_onnx(request, artifact.model_folder)
    np.savez_compressed(artifact.held_out_file, images=held_out.images, labels=held_out.labels)


def _move_into_place(scratch: Path, artifact: DigitsArtifact) -> None:
    """Rename, so that nobody ever sees half an artifact."""
    if artifact.root.exists():
        shutil.rmtree(artifact.root)
    scratch.replace(artifact.root)
    artifact.root.chmod(0o755)


def main() -> None:
    """Build into the folder given on the command line and print where the artifact is."""
    parser = argparse.ArgumentParser(description="Train the digits CNN and export it as an ONNX model folder.")
    parser.add_argument("cache", type=Path, help="folder that keeps built models")
    artifact = build(parser.parse_args().cache)
    print(artifact.root)  # noqa: T201 (a command's answer)


if __name__ == "__main__":
    main()
