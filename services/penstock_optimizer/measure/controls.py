"""The negative control: a model that no dense kernel runs faster, so that a measurement which says otherwise is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from penstock.errors import Invalid
from penstock.optimization.recipes import PruneMethod, Recipe, Step, StepName
from penstock.optimization.variants import VARIANT_FILE, Variant
from penstock.serving.manifest import ModelFormat
from penstock_optimizer.measure.variant import read_variant
from penstock_runtime.atomic import stage_folder
from penstock_runtime.engines import Array
from penstock_runtime.files import describe_folder

_SHARE: Final = 0.5
_MODEL: Final = "model.onnx"
_FLOATS: Final = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def negative_control(baseline_folder: Path, output: Path) -> Path:
    """Make a variant folder: the baseline's ONNX model with half of each weight's elements, the smallest, set to zero.

    Args:
        baseline_folder: the variant folder of ONNX Runtime in fp32.
        output: the folder to make. One that is there already is taken as it is.

    Returns:
        The folder.

    Raises:
        Invalid: the baseline is no ONNX variant.
    """
    if (output / VARIANT_FILE).is_file():
        return output
    baseline = read_variant(baseline_folder)
    if baseline.format is not ModelFormat.ONNX:
        raise Invalid(
            "ControlImpossible", f"the negative control is made from an ONNX model, not from {baseline.format}"
        )
    model = onnx.load(str(baseline_folder / baseline.entrypoint))
    zeroed = sum(_zero_half(tensor) for tensor in model.graph.initializer)
    with stage_folder(output) as scratch:
        large = model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF
        onnx.save(model, str(scratch / _MODEL), save_as_external_data=large, location=f"{_MODEL}.data")
        control = _describe(baseline, scratch, zeroed)
        (scratch / VARIANT_FILE).write_text(control.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return output


def _zero_half(tensor: onnx.TensorProto) -> int:
    """Zero the smaller half of a weight's elements, in place; how many that were. Biases and scales are left alone."""
    if tensor.data_type not in _FLOATS or len(tensor.dims) < 2:  # noqa: PLR2004 -- weights have two axes at least
        return 0
    values: Array = numpy_helper.to_array(tensor).copy()
    flat = values.reshape(-1)
    count = int(flat.size * _SHARE)
    flat[np.argsort(np.abs(flat), kind="stable")[:count]] = 0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return count


def _describe(baseline: Variant, folder: Path, zeroed: int) -> Variant:
    step = Step(name=StepName.PRUNE, method=PruneMethod.UNSTRUCTURED, parameters={"sparsity": _SHARE, "control": True})
    return baseline.model_copy(
        update={
            "recipe": Recipe(steps=(step,), engine=baseline.recipe.engine),
            "entrypoint": _MODEL,
            "files": describe_folder(folder),
            "notes": (f"negative control: {zeroed} weights set to zero",),
            "figures": {},
        }
    )
