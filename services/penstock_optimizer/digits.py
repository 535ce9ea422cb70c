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
from safetensors.torch import save_file
from torch import nn

from penstock_optimizer.artifact import (
    INPUT_NAME,
    OUTPUT_NAME,
    DigitsArtifact,
    Images,
    Split,
    digits_artifact,
)
from penstock_optimizer.building.export import ExportRequest, export_onnx

_BRIGHTEST = 16.0
"""scikit-learn's pixels go from 0 to 16."""


@dataclass(frozen=True, slots=True)
class Training:
    """How to train, and how many images each part of the data but the training part has."""

    seed: int = 0
    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 3e-3
    """The greatest of the one-cycle schedule."""
    rotation: float = 0.2
    """Augmentation: radians to either side."""
    shift: float = 1.0
    """Augmentation: pixels to either side, on both axes."""
    scale: float = 0.1
    """Augmentation: share by which an image grows or shrinks."""
    calibration_images: int = 100
    validation_images: int = 150
    test_images: int = 700
    """Enough that a loss of one point can be certified while two of them change for the worse."""
    threads: int = 1
    """The network is so small that a second one waits for the first more than it computes, and takes Ray's core."""


def split(training: Training) -> dict[Split, Images]:
    """The digits in four parts, with each digit's share kept in all of them."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 -- whoever imports only the network does not wait for it
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 -- the same

    digits = load_digits()
    images = (digits.data / _BRIGHTEST).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = digits.target.astype(np.int64)
    parts: dict[Split, Images] = {}
    sizes = {
        Split.TEST: training.test_images,
        Split.VALIDATION: training.validation_images,
        Split.CALIBRATION: training.calibration_images,
    }
    for part, size in sizes.items():
        images, part_images, labels, part_labels = train_test_split(
            images, labels, test_size=size, random_state=training.seed, stratify=labels
        )
        parts[part] = Images(part_images, part_labels)
    return {Split.TRAIN: Images(images, labels), **parts}


class DigitsNetwork(nn.Module):
    """Two convolutions and two linear layers: (batch, 1, 8, 8) images to (batch, 10) logits; 692,206 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 128, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(2048, 300), nn.ReLU(), nn.Linear(300, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of images."""
        logits: torch.Tensor = self.classifier(self.features(image))
        return logits


def network() -> DigitsNetwork:
    """The untrained network."""
    return DigitsNetwork()


def train(data: Images, training: Training) -> DigitsNetwork:
    """Train from scratch with AdamW on cross-entropy over augmented images, with a one-cycle learning rate.

    The same seed, threads and libraries give the same weights.
    """
    torch.manual_seed(training.seed)
    torch.set_num_threads(training.threads)
    model = network()
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    optimizer = torch.optim.AdamW(model.parameters(), training.learning_rate, fused=True)
    steps = training.epochs * -(-len(images) // training.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.learning_rate, total_steps=steps)
    for _ in range(training.epochs):
        for rows in torch.split(torch.randperm(len(images)), training.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(augment(images[rows], training)), labels[rows])
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return model.eval()


def augment(images: torch.Tensor, training: Training) -> torch.Tensor:
    """Each image turned, scaled and shifted a little, at random by torch's global generator."""
    rows = len(images)
    angle = (torch.rand(rows) * 2 - 1) * training.rotation
    scale = 1 + (torch.rand(rows) * 2 - 1) * training.scale
    # affine_grid counts from -1 to 1 over the whole width.
    shift = (torch.rand(rows, 2) * 2 - 1) * training.shift * 2 / images.shape[-1]
    top = torch.stack([angle.cos() * scale, -angle.sin() * scale, shift[:, 0]], dim=1)
    bottom = torch.stack([angle.sin() * scale, angle.cos() * scale, shift[:, 1]], dim=1)
    grid = nn.functional.affine_grid(torch.stack([top, bottom], dim=1), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def accuracy(model: nn.Module, data: Images) -> float:
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
        Where the model, its weights and the data lie.

    Raises:
        Invalid: the exported model does not compute what torch does.
    """
    artifact = digits_artifact(cache)
    if training is None and artifact.exists():
        return artifact
    how = training or Training()
    data = split(how)
    model = train(_join(data[Split.TRAIN], data[Split.CALIBRATION]), how)
    cache.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".digits-", dir=cache))
    try:
        _write(DigitsArtifact(scratch), model, data, how)
        _move_into_place(scratch, artifact)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return artifact


def _join(first: Images, second: Images) -> Images:
    return Images(np.concatenate([first.images, second.images]), np.concatenate([first.labels, second.labels]))


def _write(artifact: DigitsArtifact, model: DigitsNetwork, data: dict[Split, Images], training: Training) -> None:
    request = ExportRequest(
        name="digits",
        module=model,
        example=torch.from_numpy(data[Split.TEST].images[:64]),
        input_name=INPUT_NAME,
        output_name=OUTPUT_NAME,
        annotations={
            "penstock.dev/dataset": "scikit-learn digits",
            "penstock.dev/held-out-accuracy": f"{accuracy(model, data[Split.TEST]):.4f}",
            "penstock.dev/seed": str(training.seed),
            "penstock.dev/torch": torch.__version__,
        },
    )
    export_onnx(request, artifact.model_folder)
    artifact.source_folder.mkdir()
    save_file(model.state_dict(), artifact.weights_file)
    artifact.weights_file.chmod(0o644)  # safetensors makes it readable by its owner only
    artifact.data_folder.mkdir()
    for part, images in data.items():
        np.savez_compressed(artifact.split_file(part), image=images.images, labels=images.labels)


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
