"""Single weights become zero and stay so while the rest is fine-tuned."""

from __future__ import annotations

import torch
from torch import nn

from penstock.optimization.recipes import Step
from penstock_optimizer.building.draft import BuildContext, CannotDo, Draft
from penstock_optimizer.building.forms import as_module, set_module
from penstock_optimizer.steps.retraining import number, splits_of, training_deadline
from penstock_optimizer.steps.training import Learning, fit, trainable_copy

Masks = dict[str, torch.Tensor]
"""By parameter: 1 where a weight stays, else 0."""

_KEPT_OF_FOUR = 2


def global_magnitude(module: nn.Module, sparsity: float) -> Masks:
    """Masks that drop the share of weights, over all matrices and kernels together, whose magnitudes are least."""
    weights = _weights(module)
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    dropped = round(sparsity * len(magnitudes))
    keep = torch.ones(len(magnitudes), dtype=magnitudes.dtype)
    keep[magnitudes.argsort(stable=True)[:dropped]] = 0
    parts = torch.split(keep, [weight.numel() for weight in weights.values()])
    return {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def two_of_four(module: nn.Module) -> Masks:
    """Masks that keep the greater two of each four neighbours along what is summed over, as sparse tensor cores want it.

    Weights whose inputs are no multiple of four stay whole.
    """
    masks: Masks = {}
    for name, weight in _weights(module).items():
        # Kernels are multiplied with their input channels innermost.
        rows = weight.detach().movedim(1, -1)
        if rows.shape[-1] % 4:
            continue
        fours = rows.reshape(-1, 4).abs()
        keep = torch.zeros_like(fours).scatter_(1, fours.topk(_KEPT_OF_FOUR, dim=1).indices, 1.0)
        masks[name] = keep.reshape(rows.shape).movedim(-1, 1).contiguous()
    return masks


def apply_masks(module: nn.Module, masks: Masks) -> None:
    """Set what the masks drop to zero."""
    with torch.no_grad():
        for name, mask in masks.items():
            module.get_parameter(name).mul_(mask)


def mask_and_tune(step: Step, draft: Draft, context: BuildContext, masks: Masks) -> None:
    """Give the draft a copy of its module with the masks applied, fine-tuned under them.

    Raises:
        CannotDo: there is nothing to drop, or no time to fine-tune.
    """
    original, splits = as_module(draft, context), splits_of(context)
    dropped = sum(int((mask == 0).sum()) for mask in masks.values())
    if dropped == 0:
        raise CannotDo("the module has no weights that this could drop")
    module = trainable_copy(original)
    apply_masks(module, masks)
    epochs = int(number(step, "fineTuningEpochs", 10))
    teacher = original if splits.train.labels is None else None
    if epochs > 0:
        learning = Learning(epochs, context.seed, training_deadline(context), teacher=teacher)
        fitted = fit(
            module,
            splits.train,
            splits.validation,
            learning,
            name=step.label,
            after_step=lambda: apply_masks(module, masks),
        )
        if fitted.epochs == 0:
            raise CannotDo("the budget left no time for one epoch of fine-tuning: give it more minutes")
        draft.figures |= {"prune.validationScore": fitted.score, "prune.epochs": float(fitted.epochs)}
    total = sum(parameter.numel() for parameter in module.parameters())
    draft.figures |= {"prune.zeroShare": dropped / total}
    draft.notes.append(f"{dropped:,} of {total:,} weights are zero")
    set_module(draft, module)


def _weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """Matrices and kernels; biases and norms are few and matter much."""
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {
        f"{name}.weight" if name else "weight": layer.get_parameter("weight")
        for name, layer in module.named_modules()
        if isinstance(layer, layers)
    }
