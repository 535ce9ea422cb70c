"""TorchScript. Its archive looks like a pickle's, but torch reads it by an unpickler of its own that runs no Python."""

from __future__ import annotations

import warnings
from typing import Any, Final, cast

import torch
from torch._export.converter import TS2EPConverter  # torch names it in the error that refuses script modules

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock_optimizer.sources.opening import EXPORT_FAILED, Opened, Opening
from penstock_optimizer.sources.torch_program import Inputs, bind, export, run, write_forms

_load: Final[Any] = torch.jit.load  # torch does not type it


class TorchScriptSource:
    """A scripted or traced module."""

    def open(self, opening: Opening) -> Opened:
        """Load it, turn it into a program, and write its forms."""
        try:
            with warnings.catch_warnings(action="ignore"):
                module = cast("torch.jit.ScriptModule", _load(str(opening.entry), map_location="cpu"))
                module.eval()
        except RuntimeError as error:
            raise Invalid(Reason.MODEL_INVALID, f"torch cannot read {opening.entry.name}: {error}") from error
        bound = bind(module, opening.examples)
        inputs = Inputs(bound.tensors, leading=len(bound.tensors))
        wanted = run(module, inputs)
        try:
            with warnings.catch_warnings(action="ignore"):
                program = TS2EPConverter(module, inputs.arguments).convert()
        except Exception as error:  # the converter raises what it likes
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise Invalid(
                EXPORT_FAILED, f"torch cannot convert {opening.entry.name} ({first}): give ONNX, or .pt2 instead"
            ) from error
        write_forms(export(program.module(), inputs), inputs, wanted, opening.output)
        return Opened(sum(parameter.numel() for parameter in module.parameters()))
