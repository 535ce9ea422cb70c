"""Time by operator of a built variant, with the engine that its recipe names."""

from __future__ import annotations

from pathlib import Path

from penstock.optimization.measurements import OperatorShare
from penstock.optimization.recipes import EngineName
from penstock.optimization.variants import BUILT, VARIANT_FILE, DataSplits, Variant
from penstock_optimizer.profiling.onnx import profile_onnx
from penstock_optimizer.profiling.openvino import profile_openvino
from penstock_optimizer.samples.arrays import batches, read


def profile_variant(folder: Path, data: DataSplits, batch_size: int = 1) -> tuple[OperatorShare, ...]:
    """Time by operator of one run, the longest first; nothing where the engine tells no times.

    Args:
        folder: with `variant.json`.
        data: whose first calibration samples are run.
        batch_size: rows of a run, where the model takes any number.

    Raises:
        Invalid: the variant does not load, or does not run.
    """
    variant = BUILT.validate_json((folder / VARIANT_FILE).read_bytes())
    if not isinstance(variant, Variant):
        return ()
    entrypoint = folder / variant.entrypoint
    _, feeds = next(batches(read(Path(data.calibration)), variant.signature, batch_size))
    match variant.engine.name:
        case EngineName.ONNX_RUNTIME:
            return profile_onnx(entrypoint, feeds, variant.engine.threads)
        case EngineName.OPENVINO:
            return profile_openvino(entrypoint, feeds, variant.engine)
        case _:
            return ()
