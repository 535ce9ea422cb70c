"""`prune Unstructured`: the weights of least magnitude become zero, wherever they are; then the rest is fine-tuned.

It makes no dense kernel faster, and the file smaller only where it is compressed. Parameters: `sparsity`, the share of all
weights (0.5); `fineTuningEpochs` (10).
"""

from __future__ import annotations

from penstock.optimization.recipes import Step
from penstock_optimizer.building.draft import BuildContext, Draft
from penstock_optimizer.building.forms import as_module
from penstock_optimizer.steps.retraining import number, share, why_no_module, why_no_training


class PruneUnstructured:
    """Zeroes single weights by global magnitude."""

    def why_infeasible(self, step: Step, context: BuildContext) -> str | None:
        """See `StepRunner`."""
        return why_no_module(context) or (
            why_no_training(context) if number(step, "fineTuningEpochs", 10) > 0 else None
        )

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """See `StepRunner`."""
        from penstock_optimizer.steps.masking import global_magnitude, mask_and_tune  # noqa: PLC0415 -- torch

        masks = global_magnitude(as_module(draft, context), share(step, "sparsity", 0.5))
        mask_and_tune(step, draft, context, masks)
        draft.notes.append(
            "dense kernels multiply by zeros as by anything else: no speed is gained, and size only when compressed"
        )
