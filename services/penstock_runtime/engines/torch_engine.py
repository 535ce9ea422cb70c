"""One engine that runs all models of PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.optimization.recipes import EngineName, EngineSettings, Precision
from penstock.serving.manifest import DataType, Signature
from penstock_runtime.engines import Array
from penstock_runtime.engines.torch_program import DATATYPES, Program, read_options, refuse_errors

_TORCH_TYPES: Final = {datatype: dtype for dtype, datatype in DATATYPES.items()}
_LOWER: Final = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
_IMAGE_AXES: Final = 4


class TorchEngine:
    """One program, with torch's threads pinned to the number given. Torch has one number of threads a process."""

    platform = "pytorch"

    def __init__(self, program: Program, settings: EngineSettings) -> None:
        torch.set_num_threads(settings.threads)
        self.signature = program.signature
        self._program = program
        self._settings = settings
        self._device = torch.device(read_options(settings).get("device", "cpu"))
        self._lower = _LOWER.get(settings.precision)
        # Inductor lays out tensors itself, and fails on some that are laid out already.
        self._images_last = self._lower is not None and settings.name is EngineName.TORCH_EAGER
        if isinstance(program.call, nn.Module):
            _move(program.call, self._device)
            if self._lower is not None:
                _lower_weights(program.call, self._lower, images_last=self._images_last)
        self._names = [spec.name for spec in self.signature.outputs]
        self._types = [_TORCH_TYPES.get(spec.datatype) for spec in self.signature.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once."""
        tensors = [self._tensor(inputs[spec.name], spec.datatype) for spec in self.signature.inputs]
        keywords = dict(zip(self._program.keywords, tensors[len(tensors) - len(self._program.keywords) :], strict=True))
        with torch.inference_mode(), self._autocast():
            given = self._program.call(*tensors[: len(tensors) - len(keywords)], **keywords)
        outputs = _flat(given, self._names)
        if len(outputs) != len(self._names):
            raise Invalid(
                Reason.MODEL_INVALID,
                f"{self._program.name} gives {len(outputs)} tensors, but {len(self._names)} outputs are declared",
            )
        return {
            name: _array(tensor, dtype) for name, tensor, dtype in zip(self._names, outputs, self._types, strict=True)
        }

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._lower is None or self._settings.name is EngineName.TORCH_EXPORT:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._lower)

    def _tensor(self, array: Array, datatype: DataType) -> torch.Tensor:
        array = np.asarray(array, order="C")
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        if datatype is DataType.BF16:
            tensor = tensor.view(torch.bfloat16)
        tensor = tensor.to(self._device)
        if self._images_last and tensor.ndim == _IMAGE_AXES:
            tensor = tensor.to(memory_format=torch.channels_last)
        return tensor


def compile_program(program: Program, settings: EngineSettings, missing: str | None) -> TorchEngine:
    """An engine of the program, compiled: one run on zeros shows whether the compiler manages.

    Raises:
        Invalid: EngineUnavailable without a compiler; ModelInvalid where it fails.
    """
    if missing is not None:
        raise Invalid(Reason.ENGINE_UNAVAILABLE, f"{settings.name} cannot run {program.name}: {missing}")
    import torch._inductor.config as inductor  # noqa: PLC0415 -- only for this engine

    inductor.freezing = True
    inductor.compile_threads = 1  # no pool of processes that outlives the load
    plain = TorchEngine(program, settings)
    mode = read_options(settings)["mode"]
    if mode not in ("default", "max-autotune"):
        raise Invalid(Reason.MODEL_INVALID, f"mode {mode!r} is neither default nor max-autotune")
    call = torch.compile(program.call, mode=None if mode == "default" else "max-autotune-no-cudagraphs")
    engine = TorchEngine(Program(call, program.signature, program.name, program.keywords), settings)
    del plain
    zeros = _zeros(program.signature)
    if zeros is not None:
        with refuse_errors(Path(program.name)):
            engine.run(zeros)
    return engine


def _move(module: nn.Module, device: torch.device) -> None:
    if device.type != "cpu":
        if device.type != "cuda" or not torch.cuda.is_available():
            raise Invalid(
                Reason.ENGINE_UNAVAILABLE, f"torch has no device {device} here: use cpu, or a machine with a GPU"
            )
        module.to(device)


def _lower_weights(module: nn.Module, dtype: torch.dtype, *, images_last: bool) -> None:
    """Keep matrices and kernels in the precision that autocast would cast them to at each run."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.ndim > 1:
                lowered = parameter.data.to(dtype)
                image = images_last and lowered.ndim == _IMAGE_AXES
                parameter.data = lowered.to(memory_format=torch.channels_last) if image else lowered


def _flat(given: Any, names: Sequence[str]) -> list[torch.Tensor]:
    """The tensors that a call gave. A dictionary is read by name where it has the names."""
    if isinstance(given, torch.Tensor):
        return [given]
    if isinstance(given, Mapping):
        values = [given[name] for name in names] if all(name in given for name in names) else list(given.values())
    else:
        values = list(given)
    return [value for value in values if isinstance(value, torch.Tensor)]


def _array(tensor: torch.Tensor, dtype: torch.dtype | None) -> Array:
    tensor = tensor.detach()
    if dtype is not None and tensor.dtype != dtype:
        tensor = tensor.to(dtype)
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    array: Array = tensor.cpu().contiguous().numpy()
    return array


def _zeros(signature: Signature) -> dict[str, Array] | None:
    """One row of zeros; None where axes beside the first are open."""
    if any(-1 in spec.shape[1:] for spec in signature.inputs):
        return None
    return {
        spec.name: np.zeros(
            tuple(1 if axis == -1 else axis for axis in spec.shape),
            np.uint16
            if spec.datatype is DataType.BF16
            else torch.empty(0, dtype=_TORCH_TYPES[spec.datatype]).numpy().dtype,
        )
        for spec in signature.inputs
    }
