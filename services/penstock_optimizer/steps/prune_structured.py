"""`prune Structured`: whole channels go, so that the model is smaller and faster on every engine; then it is fine-tuned.

Parameters: `sparsity`, the share of each layer's channels to drop (0.5); `fineTuningEpochs` over the train split (10), from
the labels, or without them from the model as it was; `importance`, `magnitude` or `taylor` (magnitude).
"""

from __future__ import annotations

from penstock.optimization.recipes import Step
from penstock_optimizer.building.draft import BuildContext, CannotDo, Draft
from penstock_optimizer.building.forms import as_module, set_module
from penstock_optimizer.steps.retraining import (
    number,
    share,
    splits_of,
    training_deadline,
    why_no_module,
    why_no_training,
)

_IMPORTANCES = ("magnitude", "taylor")


class PruneStructured:
    """Drops channels by torch-pruning's dependency graph."""

    def why_infeasible(self, step: Step, context: BuildContext) -> str | None:
        """See `StepRunner`."""
        importance = step.parameters.get("importance", _IMPORTANCES[0])
        if importance not in _IMPORTANCES:
            return f"importance is {importance!r}: expected one of {', '.join(_IMPORTANCES)}"
        return why_no_module(context) or (
            why_no_training(context) if number(step, "fineTuningEpochs", 10) > 0 else None
        )

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """See `StepRunner`."""
        from penstock_optimizer.steps.narrowing import Importance, narrow, parameter_count  # noqa: PLC0415 -- torch
        from penstock_optimizer.steps.training import Learning, fit  # noqa: PLC0415 -- torch

        original, splits = as_module(draft, context), splits_of(context)
        epochs = int(number(step, "fineTuningEpochs", 10))
        teacher = original if splits.train.labels is None else None
        learning = Learning(epochs, context.seed, training_deadline(context), teacher=teacher)
        importance = Importance(str(step.parameters.get("importance", Importance.MAGNITUDE)))
        sparsity = share(step, "sparsity", 0.5)
        module = narrow(original, splits.train, sparsity, importance, learning)
        before, after = parameter_count(original), parameter_count(module)
        draft.notes.append(f"pruned {before:,} to {after:,} parameters: {sparsity:.0%} of the channels by {importance}")
        draft.figures |= {"prune.parametersBefore": float(before), "prune.parametersAfter": float(after)}
        if epochs > 0:
            fitted = fit(module, splits.train, splits.validation, learning, name=step.label)
            if fitted.epochs == 0:
                raise CannotDo("the budget left no time for one epoch of fine-tuning: give it more minutes")
            draft.figures |= {"prune.validationScore": fitted.score, "prune.epochs": float(fitted.epochs)}
            if fitted.epochs < epochs:
                draft.notes.append(f"fine-tuning ended after {fitted.epochs} of {epochs} epochs: the budget was spent")
        set_module(draft, module)
