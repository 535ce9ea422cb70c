"""`prune Unstructured`: the weights of least magnitude become zero, wherever they are; then the rest is fine-tuned.

It makes no dense kernel faster, and the file smaller only where it is compressed. Parameters: `sparsity`, the share of all
weights (0.5); `fineTuningEpochs` (10).
"""

from __future__ import annotations

from penstock.optimization.recipes import Step
from penstock_optimizer.building.draft import BuildContext, Draft
from penstock_optimizer.building.forms import as_module
from penstock_optimizer.steps.retraining import no_module, no_training, number, share


class PruneUnstructured:
    """Zeroes single weights by global magnitude."""

    def infeasible(self, step: Step, context: BuildContext) -> str | None:
        """See `StepRunner`."""
        return no_module(context) or (no_training(context) if number(step, "fineTuningEpochs", 10) > 0 else None)

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """See `StepRunner`."""
        from penstock_optimizer.steps.masking import global_magnitude, masked_and_tuned  # noqa: PLC0415 -- torch

        masks = global_magnitude(as_module(draft, context), share(step, "sparsity", 0.5))
        masked_and_tuned(step, draft, context, masks)
        draft.notes.append(
            "dense kernels multiply by zeros as by anything else: no speed is gained, and size only when compressed"
        )
