"""`prune SemiStructured24`: two of each four weights become zero, as the sparse tensor cores of NVIDIA GPUs want it.

Parameters: `fineTuningEpochs` (10).
"""

from __future__ import annotations

from penstock.engines import ENGINES, GpuUse
from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import Step
from penstock_optimizer.building.draft import BuildContext, Draft
from penstock_optimizer.building.forms import as_module
from penstock_optimizer.steps.retraining import number, why_no_module, why_no_training

_SPARSE_SINCE = (8, 0)
"""Ampere."""


class PruneSemiStructured:
    """Zeroes two of four weights."""

    def why_infeasible(self, step: Step, context: BuildContext) -> str | None:
        """See `StepRunner`."""
        if not has_sparse_tensor_cores(context.hardware):
            return (
                "two-of-four sparsity is faster on sparse tensor cores only, and there are none here: it needs an NVIDIA"
                " GPU of compute capability 8.0 or more"
            )
        if ENGINES[context.engine.name].gpu is GpuUse.NEVER:
            return f"{context.engine.name} runs on the CPU, which has no sparse tensor cores: use ONNXRuntimeTensorRT"
        return why_no_module(context) or (
            why_no_training(context) if number(step, "fineTuningEpochs", 10) > 0 else None
        )

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """See `StepRunner`."""
        from penstock_optimizer.steps.masking import mask_and_tune, two_of_four  # noqa: PLC0415 -- torch

        mask_and_tune(step, draft, context, two_of_four(as_module(draft, context)))


def has_sparse_tensor_cores(hardware: Hardware) -> bool:
    """Whether a GPU here multiplies two-of-four sparse matrices in hardware."""
    return any(_capability(gpu.compute_capability) >= _SPARSE_SINCE for gpu in hardware.gpus)


def _capability(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else (0,)
