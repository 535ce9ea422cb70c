"""From a torch module to a model folder: ONNX with a dynamic batch axis, checked against torch, and its manifest."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from penstock.errors import Invalid
from penstock.serving.manifest import MANIFEST_NAME, DataType, ModelManifest, Signature, TensorSpec
from penstock_runtime.files import describe_file

MODEL_FILE = "model.onnx"
TOLERANCE = 1e-4
"""Largest difference allowed between an output of torch and of ONNX Runtime, absolute and relative."""

_DATATYPES = {
    "tensor(bool)": DataType.BOOL,
    "tensor(float)": DataType.FP32,
    "tensor(float16)": DataType.FP16,
    "tensor(double)": DataType.FP64,
    "tensor(int32)": DataType.INT32,
    "tensor(int64)": DataType.INT64,
    "tensor(uint8)": DataType.UINT8,
}


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export and what to call it."""

    name: str
    module: torch.nn.Module
    """Takes one tensor with a leading batch axis and gives one such tensor."""
    example: torch.Tensor
    """A batch of at least two rows, on which the export is checked."""
    input_name: str
    output_name: str
    annotations: Mapping[str, str]


def export_onnx(request: ExportRequest, folder: Path) -> ModelManifest:
    """Write `model.onnx` and `manifest.json` into a folder, which is made if absent.

    Returns:
        The manifest, as written.

    Raises:
        Invalid: ONNX Runtime's outputs differ from torch's by more than `TOLERANCE`, or a tensor's type is not known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_FILE
    module = request.module.eval()
    _export(request, module, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    _check_equal(request, module, session)
    manifest = ModelManifest(
        name=request.name,
        entrypoint=MODEL_FILE,
        signature=signature_of(session),
        files={MODEL_FILE: describe_file(path)},
        annotations=dict(request.annotations),
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def signature_of(session: onnxruntime.InferenceSession) -> Signature:
    """What an ONNX model takes and gives; an axis with a name instead of a length is -1.

    Raises:
        Invalid: a tensor's element type has no counterpart here.
    """
    return Signature(
        inputs=tuple(_tensor(node) for node in session.get_inputs()),
        outputs=tuple(_tensor(node) for node in session.get_outputs()),
    )


def _export(request: ExportRequest, module: torch.nn.Module, path: Path) -> None:
    # The exporter warns of each optional operator library (torchvision) that is not installed.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        module,
        (request.example,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[request.input_name],
        output_names=[request.output_name],
        verbose=False,
    )
    if program is None:
        raise Invalid("ExportFailed", f"torch gave no ONNX program for {request.name}")
    program.save(str(path), external_data=False)


def _check_equal(request: ExportRequest, module: torch.nn.Module, session: onnxruntime.InferenceSession) -> None:
    with torch.no_grad():
        wanted = module(request.example).numpy()
    (got,) = session.run([request.output_name], {request.input_name: request.example.numpy()})
    if got.shape != wanted.shape or not np.allclose(got, wanted, rtol=TOLERANCE, atol=TOLERANCE):
        worst = float(np.abs(got - wanted).max()) if got.shape == wanted.shape else float("nan")
        raise Invalid("ExportDiffers", f"{request.name}: ONNX Runtime's outputs differ from torch's by up to {worst:g}")


def _tensor(node: onnxruntime.NodeArg) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        raise Invalid("UnsupportedType", f"tensor {node.name} has the type {node.type}, which has no protocol type")
    return TensorSpec(
        name=node.name,
        datatype=datatype,
        shape=tuple(axis if isinstance(axis, int) else -1 for axis in node.shape),
    )
