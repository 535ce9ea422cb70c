"""The model manifest: what is in a model folder, and what it expects and gives.

A model folder holds `manifest.json` and the files it lists. Its digest is the SHA-256 of `manifest.json`'s bytes, and
since that lists each file's SHA-256, it covers every byte. A model without a manifest has the digest of its file, or of all
files that serve with it (`penstock_runtime.digests`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from penstock.models import Frozen
from penstock.optimization.hardware import Hardware, HardwareRequirement
from penstock.optimization.measurements import Company
from penstock.optimization.recipes import EngineSettings, Recipe
from penstock.serving.joining import Joining

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "model.sig"
"""Covers every other file of the folder."""


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


class ModelFormat(StrEnum):
    """Formats of a model on disk."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    """OpenVINO IR: `model.xml` and `model.bin`."""
    TORCH_EXPORT = "torch-export"
    """`.pt2`, as `torch.export.save` writes it."""
    TORCHSCRIPT = "torchscript"
    SAFETENSORS = "safetensors"
    """Weights; the code comes by an import path, so it is converted in the sandbox and never served as it is."""
    LITERT = "litert"


class TensorSpec(Frozen):
    """A named tensor. An axis of -1 may have any length. Whether it counts rows is no matter of shapes: `Joining` says it."""

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    any_rank: bool = False
    """The model states no number of axes: any shape is let through, and `shape` is empty without saying anything."""
    classes: tuple[str | int, ...] = ()
    """What the last axis of an output counts, where the model names it: a classifier's labels."""


class Signature(Frozen):
    """What a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    optional: tuple[TensorSpec, ...] = ()
    """Inputs that a request may leave out: the model has values of its own for them. They have no batch axis."""


class ModelFile(Frozen):
    """One file of the model folder."""

    sha256: str
    size_bytes: int


class BatchPoint(Frozen):
    """One point of the measured batch curve, on the hardware that the manifest requires."""

    rows: Annotated[int, Field(ge=1)]
    p50_milliseconds: float
    """Time of one engine run with so many rows."""
    p99_milliseconds: float
    rows_per_second: float


class Capacity(Frozen):
    """What one replica carries, by measurement. From it come batch size, wait and the autoscaling target."""

    curve: tuple[BatchPoint, ...]
    """By ascending rows."""
    max_batch_size: Annotated[int, Field(ge=1)]
    max_delay_milliseconds: Annotated[int, Field(ge=0)]
    requests_per_second: Annotated[float, Field(ge=0)]
    """Of one row each, at the service-level objective where one was given."""
    target_in_flight_requests: Annotated[int, Field(ge=1)]


class Optimization(Frozen):
    """The lineage of an optimized model."""

    profile: str
    """Kind and name, such as `ClusterOptimizationProfile/balanced`."""
    profile_digest: str
    source_digest: str
    """Of the model that it was made from."""
    calibration_digest: str | None = None
    recipe: Recipe
    library_versions: dict[str, str]
    hardware: Hardware
    """Where it was measured."""
    requires: HardwareRequirement
    """Where it may be served."""
    capacity: Capacity | None = None
    company: Company | None = None
    """What others in a batch do to an answer. With a problem: requests are never joined."""
    speedups: dict[str, float] = Field(default={})
    """By baseline, such as `TorchEager fp32`."""
    report: str | None = None
    """Path of the report within the folder."""
    namespace: str | None = None
    """That it was made for; None: by a command, for whoever trusts its key."""
    run: str | None = None
    """uid of the `OptimizationRun` that made it."""


class ModelManifest(Frozen):
    """`manifest.json` in a model folder."""

    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    kind: Literal["ModelManifest"] = "ModelManifest"
    name: str
    format: ModelFormat = ModelFormat.ONNX
    entrypoint: str = "model.onnx"
    signature: Signature
    files: dict[str, ModelFile]
    """By path relative to the manifest; `entrypoint` is among them."""
    engine: EngineSettings | None = None
    """How it is to be run; None: by the default engine of its format, with the replica's own threads."""
    joining: Joining | None = None
    """Along which axes requests may be joined into one run; an empty one: never. Each replica checks it by trial runs. None:
    the replica finds out."""
    optimization: Optimization | None = None
    """What made it; None: a model as its owner gave it. One with this must be signed."""
    annotations: dict[str, str] = Field(default={})
