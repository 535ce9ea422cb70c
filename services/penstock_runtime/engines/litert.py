"""LiteRT, the runtime of edge bundles, where its package is installed. It has no options and computes in fp32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import EngineName, EngineSettings, Precision
from penstock.protocol.datatypes import DTYPES
from penstock.protocol.refusals import unfit_for_model
from penstock.serving.manifest import Signature, TensorSpec
from penstock_runtime.engines import Array, first_line, options_of

_DATATYPES: Final = {
    np.dtype(dtype): datatype for datatype, dtype in DTYPES.items() if datatype.value not in ("BF16", "BYTES")
}


def why_unavailable(name: EngineName, hardware: Hardware) -> str | None:
    """It runs wherever its package is installed."""
    del name, hardware
    return None


def load(entrypoint: Path, settings: EngineSettings, signature: Signature | None) -> LiteRtEngine:
    """Load a `.tflite` file.

    Raises:
        Invalid: ModelInvalid, or EngineUnavailable for a precision other than fp32.
    """
    options_of(settings, {})
    if settings.precision is not Precision.FP32:
        raise Invalid(
            Reason.ENGINE_UNAVAILABLE,
            f"LiteRT cannot be pinned to {settings.precision}: use fp32, or quantize the model",
        )
    return LiteRtEngine(entrypoint, settings, signature)


class LiteRtEngine:
    """One interpreter, whose tensors are resized where the number of rows changes."""

    platform = "litert"

    def __init__(self, path: Path, settings: EngineSettings, declared: Signature | None) -> None:
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=settings.threads)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise Invalid(Reason.MODEL_INVALID, f"LiteRT cannot load {path.name}: {first_line(error)}") from error
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.signature = declared or Signature(
            inputs=tuple(_spec(detail) for detail in self._inputs),
            outputs=tuple(_spec(detail) for detail in self._outputs),
        )
        self._shapes: tuple[tuple[int, ...], ...] = ()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once.

        Every run starts from the variables' initial values, which recurrent layers keep theirs in: nothing of one caller's
        request may reach another's answer.

        Raises:
            Invalid: the inputs' shapes do not fit together.
        """
        arrays = [np.asarray(inputs[spec.name], order="C") for spec in self.signature.inputs]
        shapes = tuple(array.shape for array in arrays)
        if shapes != self._shapes:
            self._resize(shapes)
        self._interpreter.reset_all_variables()
        for detail, array in zip(self._inputs, arrays, strict=True):
            self._interpreter.set_tensor(detail["index"], array)
        self._interpreter.invoke()
        return {
            spec.name: self._interpreter.get_tensor(detail["index"])
            for spec, detail in zip(self.signature.outputs, self._outputs, strict=True)
        }

    def _resize(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        # Where it fails, some tensors have the new shapes and others the old ones: the next run must not take them for its own.
        self._shapes = ()
        try:
            for detail, shape in zip(self._inputs, shapes, strict=True):
                self._interpreter.resize_tensor_input(detail["index"], shape)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise unfit_for_model(f"the model refuses inputs of these shapes: {first_line(error)}") from error
        self._shapes = shapes


def _spec(detail: Mapping[str, Any]) -> TensorSpec:
    datatype = _DATATYPES.get(np.dtype(detail["dtype"]))
    if datatype is None:
        raise Invalid(
            Reason.MODEL_INVALID, f"'{detail['name']}' is a {detail['dtype']}, which cannot be served with LiteRT"
        )
    open_axes = detail.get("shape_signature", detail["shape"])
    return TensorSpec(name=str(detail["name"]), datatype=datatype, shape=tuple(int(axis) for axis in open_axes))
