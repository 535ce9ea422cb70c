"""The model manifest: what is in a model folder, and what it expects and gives.

A model folder holds `manifest.json` and the files it lists. Its digest is the SHA-256 of `manifest.json`'s bytes, and
since that lists each file's SHA-256, it covers every byte. A lone `model.onnx` has no manifest; its digest is the file's.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from penstock.models import Frozen

MANIFEST_NAME = "manifest.json"


class DataType(StrEnum):
    """Tensor element types of the Open Inference Protocol v2."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"


class TensorSpec(Frozen):
    """A named tensor. An axis of -1 may have any length; a leading -1 on all inputs and outputs is the batch axis."""

    name: str
    datatype: DataType
    shape: tuple[int, ...]


class Signature(Frozen):
    """What a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def batchable(self) -> bool:
        """Whether every tensor has a leading dynamic axis, along which requests can be joined."""
        return all(t.shape[:1] == (-1,) for t in (*self.inputs, *self.outputs))


class ModelFile(Frozen):
    """One file of the model folder."""

    sha256: str
    size_bytes: int


class ModelManifest(Frozen):
    """`manifest.json` in a model folder."""

    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    kind: Literal["ModelManifest"] = "ModelManifest"
    name: str
    format: Literal["onnx"] = "onnx"
    entrypoint: str = "model.onnx"
    signature: Signature
    files: dict[str, ModelFile]
    """By path relative to the manifest; `entrypoint` is among them."""
    annotations: dict[str, str] = Field(default={})
