"""A variant folder, opened: its description, its engine, and what its engine needs of a measurement."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock.engines import ENGINES, GpuUse
from penstock.errors import Invalid
from penstock.optimization.variants import BUILT, VARIANT_FILE, Variant
from penstock_runtime.engines import Engine, load_engine


def read_variant(folder: Path) -> Variant:
    """`variant.json` of a folder.

    Raises:
        Invalid: there is none, or the build that it tells of did not give a model.
    """
    try:
        built = BUILT.validate_json((folder / VARIANT_FILE).read_bytes())
    except OSError as error:
        raise Invalid("VariantMissing", f"{folder} holds no {VARIANT_FILE}: build it first") from error
    if not isinstance(built, Variant):
        raise Invalid("VariantMissing", f"{folder} tells of a build that gave no model ({built.type})")
    return built


def open_variant(folder: Path) -> tuple[Variant, Engine]:
    """The variant of a folder and its engine, in a process that may run its code: see `Channel`.

    Raises:
        Invalid: there is no variant, or its engine cannot load it.
    """
    variant = read_variant(folder)
    return variant, load_engine(folder / variant.entrypoint, variant.engine, variant.signature, trusted=True)


def is_code(variant: Variant) -> bool:
    """Whether running it may run what the model's owner wrote, so that it runs isolated only."""
    return ENGINES[variant.engine.name].torch


def is_accelerated(variant: Variant) -> bool:
    """Whether a GPU does the work."""
    match ENGINES[variant.engine.name].gpu:
        case GpuUse.ALWAYS:
            return True
        case GpuUse.OPTION:
            return variant.engine.options.get("device", "").startswith("cuda")
        case GpuUse.NEVER:
            return False


def synchronizer(variant: Variant) -> Callable[[], None] | None:
    """What to call after a run before the clock is read, where the engine may return earlier than its GPU is done."""
    if not is_accelerated(variant) or not ENGINES[variant.engine.name].torch:
        return None  # ONNX Runtime returns arrays of the host, and so has waited
    import torch  # noqa: PLC0415 -- only for torch's own engines on a GPU

    return torch.cuda.synchronize


def pin_to_cores(cores: Sequence[int] | None) -> None:
    """Run on these cores only, with all threads that are yet to start. Without them: wherever the system puts us."""
    if cores is not None:
        os.sched_setaffinity(0, cores)
