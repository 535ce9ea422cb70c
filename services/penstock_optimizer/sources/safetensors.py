"""safetensors: weights, whose code comes by an import path."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.wording import join_some
from penstock_optimizer.sources.opening import EXPORT_FAILED, WEIGHTS_FILE, Opened, Opening
from penstock_optimizer.sources.torch_program import bind, export, run, write_forms

IMPORT_FAILED: Final = "ImportFailed"
_SHOWN: Final = 5


class SafetensorsSource:
    """Weights and an import path."""

    def open(self, opening: Opening) -> Opened:
        """Load the module, and write its ONNX form, its program, and its weights."""
        request = opening.request
        if request.import_path is None:
            raise Invalid(
                IMPORT_FAILED,
                f"{opening.entry.name} holds weights only: give the import path (package.module:callable) of what makes"
                " the torch.nn.Module",
            )
        module = load_module(request.import_path, request.python_path, opening.entry)
        inputs = bind(module, opening.examples)
        wanted = run(module, inputs)
        write_forms(export(module, inputs), inputs, wanted, opening.output)
        shutil.copyfile(opening.entry, opening.output / WEIGHTS_FILE)
        return Opened(sum(parameter.numel() for parameter in module.parameters()))


def load_module(import_path: str, python_path: Sequence[str], weights: Path | None) -> torch.nn.Module:
    """Import the callable, call it, and load the weights strictly. Code of the user: only in the sandbox.

    Returns:
        The module in fp32, in eval mode, without gradients.

    Raises:
        Invalid: ImportFailed; or ModelInvalid with the keys that are missing and those that are too many.
    """
    module = call_import_path(import_path, python_path)
    if not isinstance(module, torch.nn.Module):
        raise Invalid(IMPORT_FAILED, f"{import_path} gave a {type(module).__name__}: it must give a torch.nn.Module")
    if weights is not None:
        _load(module, weights)
    return module.float().eval().requires_grad_(requires_grad=False)


def call_import_path(import_path: str, python_path: Sequence[str]) -> object:
    """What the callable gives.

    Raises:
        Invalid: ImportFailed.
    """
    package, separator, name = import_path.partition(":")
    if not separator or not package or not name.isidentifier():
        raise Invalid(IMPORT_FAILED, f"'{import_path}' is no import path: write package.module:callable")
    sys.path[:0] = [folder for folder in python_path if folder not in sys.path]
    try:
        return getattr(importlib.import_module(package), name)()
    except Exception as error:  # whatever a user's code raises
        where = (
            f", looked for in {', '.join(python_path)} too" if isinstance(error, ImportError) and python_path else ""
        )
        raise Invalid(IMPORT_FAILED, f"{import_path}: {type(error).__name__}: {error}{where}") from error


def _load(module: torch.nn.Module, weights: Path) -> None:
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise Invalid(Reason.MODEL_INVALID, f"{weights.name}: {error}") from error
    own = module.state_dict()
    tied = _aliases_of(module, own)
    missing = sorted(name for name in own if name not in tensors and not tied.get(name, set()) & set(tensors))
    unexpected = sorted(set(tensors) - set(own))
    differing = sorted(n for n in set(own) & set(tensors) if own[n].shape != tensors[n].shape)
    if missing or unexpected or differing:
        shapes = [f"{n} {tuple(tensors[n].shape)} instead of {tuple(own[n].shape)}" for n in differing]
        parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        told = "; ".join(f"{what}: {join_some(names, _SHOWN)}" for what, names in parts if names)
        raise Invalid(
            Reason.MODEL_INVALID, f"{weights.name} does not fit the module that the import path gives: {told}"
        )
    try:
        module.load_state_dict(tensors, strict=False)  # all but tied names was compared above
    except RuntimeError as error:
        raise Invalid(EXPORT_FAILED, f"{weights.name}: {error}") from error


def _aliases_of(module: torch.nn.Module, own: dict[str, torch.Tensor]) -> dict[str, set[str]]:
    """By name, the other names of the same parameter: safetensors keeps one of them."""
    kept = module.state_dict(keep_vars=True)
    by_identity: dict[int, set[str]] = {}
    for name, tensor in kept.items():
        by_identity.setdefault(id(tensor), set()).add(name)
    return {name: by_identity[id(kept[name])] - {name} for name in own}
