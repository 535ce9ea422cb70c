"""Whole channels of a module go, and with them all that depends on them, by torch-pruning's dependency graph.

Fang et al., "DepGraph: Towards Any Structural Pruning" (2023). Nothing else here imports torch-pruning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import torch
import torch_pruning
from torch import nn

from penstock_optimizer.building.draft import CannotDo
from penstock_optimizer.steps.training import Learning, Samples, loss_of, outputs_of, trainable_copy

_PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
_LANES = (8, 4, 2)
"""Channel counts are kept a multiple of the first that leaves every layer some: engines compute so many at once."""
_TAYLOR_SAMPLES = 256


class Importance(StrEnum):
    """By what channels are ranked."""

    MAGNITUDE = "magnitude"
    """The L2 norm of a channel's weights in all layers that it goes through."""
    TAYLOR = "taylor"
    """How much the loss would change to first order, on training samples."""


def narrow(module: nn.Module, samples: Samples, share: float, importance: Importance, learning: Learning) -> nn.Module:
    """A copy of a module without a share of the channels of each layer. Inputs and outputs keep their shapes.

    Args:
        module: the original, which is not changed.
        samples: on which the graph is traced, and Taylor's gradients are taken.
        share: of each layer's channels to drop, between 0 and 1.
        importance: which go first.
        learning: gives the loss for Taylor.

    Raises:
        CannotDo: no layer can be made narrower, or the narrower module no longer runs or gives other shapes.
    """
    copied = trainable_copy(module)
    example = samples.rows(torch.arange(2)).inputs
    shapes = [tuple(output.shape) for output in outputs_of(copied, example)]
    before = parameter_count(copied)
    try:
        _prune(copied, example, share, lambda: _importance(copied, importance, samples, learning))
        with torch.no_grad():
            after = [tuple(output.shape) for output in outputs_of(copied, example)]
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError) as error:
        # The graph is traced through a user's code, and whatever it does that torch-pruning does not know surfaces so.
        raise CannotDo(f"channels cannot be followed through this module: {type(error).__name__}: {error}") from error
    if after != shapes:
        raise CannotDo(f"without those channels the outputs have the shapes {after} instead of {shapes}")
    if parameter_count(copied) >= before:
        raise CannotDo(f"no layer can lose {share:.0%} of its channels without changing the outputs' shapes")
    copied.zero_grad(set_to_none=True)
    return copied


def parameter_count(module: nn.Module) -> int:
    """Weights and biases."""
    return sum(parameter.numel() for parameter in module.parameters())


def _prune(
    module: nn.Module,
    example: Mapping[str, torch.Tensor],
    share: float,
    ranking: Callable[[], object],
) -> None:
    ignored = _fixed_layers(module, example)
    free = [each for each in module.modules() if isinstance(each, _PRUNABLE) and each not in ignored]
    if not free:
        return
    pruner = torch_pruning.pruner.BasePruner(
        module,
        example,
        ranking(),
        pruning_ratio=share,
        ignored_layers=ignored,
        forward_fn=outputs_of,
        round_to=_lanes([_width(each) for each in free], share),
        # Its defaults for these are shared between all pruners of a process.
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
        channel_groups={},
    )
    pruner.step()


def _importance(module: nn.Module, importance: Importance, samples: Samples, learning: Learning) -> object:
    match importance:
        case Importance.MAGNITUDE:
            return torch_pruning.importance.GroupMagnitudeImportance(p=2)
        case Importance.TAYLOR:
            some = samples.rows(torch.arange(min(len(samples), _TAYLOR_SAMPLES)))
            torch.autograd.backward(loss_of(module, some, learning))
            return torch_pruning.importance.GroupTaylorImportance()


def _fixed_layers(module: nn.Module, example: Mapping[str, torch.Tensor]) -> list[nn.Module]:
    """Layers whose width shows in an output, and those inside attention, whose width is tied to the number of heads."""
    graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=example, forward_fn=outputs_of)
    fixed: list[nn.Module] = [
        inner
        for attention in module.modules()
        if hasattr(attention, "num_heads") or hasattr(attention, "num_attention_heads")
        for inner in attention.modules()
        if isinstance(inner, _PRUNABLE)
    ]
    for layer in module.modules():
        if isinstance(layer, _PRUNABLE) and layer not in fixed and _shows(graph, layer):
            fixed.append(layer)
    return fixed


def _shows(graph: torch_pruning.DependencyGraph, layer: nn.Module) -> bool:
    if layer not in graph.module2node:
        return True  # The graph never met it: it is not used, or in a way that is not understood.
    group = graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, [0])
    return any(not dep.target.outputs and not graph.is_in_channel_pruning_fn(dep.handler) for dep, _ in group)


def _width(layer: nn.Module) -> int:
    weight = layer.get_parameter("weight")
    return weight.shape[1 if isinstance(layer, nn.ConvTranspose2d) else 0]


def _lanes(widths: Sequence[int], share: float) -> int | None:
    left = min(width * (1 - share) for width in widths)
    return next((lanes for lanes in _LANES if left >= lanes), None)
