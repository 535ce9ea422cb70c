"""A small convolutional network as a user would have it, prepared once."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from penstock.optimization.variants import DataSplits, PreparedSource, SourceRequest
from penstock_optimizer.building.source import prepare
from penstock_optimizer.samples.data import prepare_data

CODE = """
    import torch


    class Network(torch.nn.Module):
        output_names = ("scores",)

        def __init__(self):
            super().__init__()
            self.kernel = torch.nn.Conv2d(1, 8, 3)
            self.head = torch.nn.Linear(8 * 36, 10)

        def forward(self, image, shift):
            return self.head(torch.relu(self.kernel(image)).flatten(1)) + shift


    def network():
        return Network()
"""


@dataclass(frozen=True)
class Small:
    request: SourceRequest
    data: Path
    folder: Path
    source: PreparedSource
    splits: DataSplits


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    root = tmp_path_factory.mktemp("small")
    (root / "small_network.py").write_text(textwrap.dedent(CODE))
    torch.manual_seed(0)
    weights = {
        "kernel.weight": torch.randn(8, 1, 3, 3), "kernel.bias": torch.randn(8),
        "head.weight": torch.randn(10, 288) / 17, "head.bias": torch.randn(10),
    }  # fmt: skip
    save_file(weights, root / "model.safetensors")
    random = np.random.default_rng(0)
    np.savez(
        root / "data.npz",
        image=random.standard_normal((60, 1, 8, 8), dtype=np.float32),
        shift=random.standard_normal((60, 10), dtype=np.float32),
    )
    request = SourceRequest(
        path=str(root / "model.safetensors"), import_path="small_network:network", python_path=(str(root),)
    )
    source = prepare(request, root / "source", data=root / "data.npz", sandbox=True)
    splits = prepare_data(str(root / "data.npz"), source, root / "splits", max_samples=20, seed=0)
    return Small(request, root / "data.npz", root / "source", source, splits)
