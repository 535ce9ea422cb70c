"""The training loop that pruning and distillation share: seeded, bounded by a deadline, selected on validation.

It learns from labels (cross-entropy for integers, squared error for others), from a teacher, or from both. Progress goes
to standard error.
"""

from __future__ import annotations

import copy
import inspect
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from penstock.serving.manifest import Signature
from penstock_optimizer.building.draft import CannotDo

LABELS = "labels"
_SCORING_ROWS = 256
_CLASS_AXES = 2


@dataclass(frozen=True, slots=True)
class Samples:
    """A split as tensors. The first axis of each counts samples."""

    inputs: Mapping[str, torch.Tensor]
    """By name, in the order of the model's signature."""
    labels: torch.Tensor | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def rows(self, index: torch.Tensor) -> Samples:
        """The samples with these indices."""
        inputs = {name: each[index] for name, each in self.inputs.items()}
        return Samples(inputs, None if self.labels is None else self.labels[index])


@dataclass(frozen=True, slots=True)
class Learning:
    """From what to learn, and how fast."""

    epochs: int
    seed: int
    deadline: float
    """Of the monotonic clock; epochs that would not fit are left out."""
    teacher: nn.Module | None = None
    """In eval mode. None: from labels alone."""
    temperature: float = 4.0
    soft_label_weight: float = 0.7
    """Of the teacher's share in the loss where there are labels too."""
    batch_size: int = 32
    learning_rate: float = 1e-3
    """At the start; it falls to nothing along a cosine."""
    weight_decay: float = 1e-2


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of a training."""

    score: float
    """On the validation samples, of the epoch that was kept: accuracy, negated squared error, or cosine."""
    epochs: int
    """That were run."""


def load_samples(path: Path, signature: Signature) -> Samples:
    """A split that `penstock_optimizer.samples.data` prepared, as tensors.

    Raises:
        CannotDo: an array that the model takes is not there.
    """
    with np.load(path, allow_pickle=False) as archive:
        absent = [spec.name for spec in signature.inputs if spec.name not in archive.files]
        if absent:
            raise CannotDo(
                f"{path.name} has no array named {absent[0]}: its arrays must be named by the model's inputs"
            )
        inputs = {spec.name: torch.from_numpy(archive[spec.name]) for spec in signature.inputs}
        labels = torch.from_numpy(archive[LABELS]) if LABELS in archive.files else None
    if labels is not None:
        labels = labels.float() if labels.is_floating_point() else labels.long()
    return Samples(inputs, labels)


def outputs_of(module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The tensors that a module gives, whether as one, a sequence, or a mapping.

    It is called by name where its arguments have the inputs' names, else by position.

    Raises:
        CannotDo: it gives no tensor.
    """
    by_name = inputs.keys() <= inspect.signature(module.forward).parameters.keys()
    given = module(**inputs) if by_name else module(*inputs.values())
    if isinstance(given, torch.Tensor):
        return (given,)
    values = given.values() if isinstance(given, Mapping) else given
    tensors = tuple(value for value in values if isinstance(value, torch.Tensor))
    if not tensors:
        raise CannotDo(f"the module gives {type(given).__name__} without a tensor in it, from which nothing can learn")
    return tensors


def trainable_copy(module: nn.Module) -> nn.Module:
    """A copy whose parameters take gradients, in eval mode."""
    copied = copy.deepcopy(module).eval()
    for parameter in copied.parameters():
        parameter.requires_grad = parameter.is_floating_point()
    return copied


def score(module: nn.Module, samples: Samples, teacher: nn.Module | None) -> float:
    """How good a module is; more is better.

    Returns:
        With labels: accuracy (classes), or the negated mean squared error. Without: the mean cosine with the teacher.
    """
    found: list[torch.Tensor] = []
    with torch.no_grad():
        for part in _batches(samples, torch.arange(len(samples)), _SCORING_ROWS):
            output = outputs_of(module, part.inputs)[0].flatten(1)
            if part.labels is None:
                wanted = outputs_of(_require_teacher(teacher), part.inputs)[0].flatten(1)
                found.append(nn.functional.cosine_similarity(output, wanted))
            elif _classes(output, part.labels):
                found.append((output.argmax(dim=1) == part.labels).float())
            else:
                found.append(-(output - part.labels.reshape(output.shape)).square().mean(dim=1))
    return float(torch.cat(found).mean())


def fit(
    module: nn.Module,
    train: Samples,
    validation: Samples,
    learning: Learning,
    *,
    name: str,
    after_step: Callable[[], None] | None = None,
) -> Fitted:
    """Train a module in place, and leave it in eval mode with the weights of the epoch that did best on validation.

    The weights from before count as an epoch: training never leaves a module worse on validation than it was.

    Args:
        module: to train.
        train: to learn from.
        validation: to select by.
        learning: how.
        name: for progress.
        after_step: called after each change of the weights, such as to keep pruned ones at zero.
    """
    torch.manual_seed(learning.seed)
    generator = torch.Generator().manual_seed(learning.seed)
    optimizer = torch.optim.AdamW(module.parameters(), learning.learning_rate, weight_decay=learning.weight_decay)

    def update() -> None:
        optimizer.step()
        if after_step is not None:
            after_step()

    module.eval()
    best, kept = score(module, validation, learning.teacher), _copy_state(module)
    epochs, done = learning.epochs, 0
    while done < epochs:
        begun = time.monotonic()
        if begun >= learning.deadline:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning.learning_rate * (1 + math.cos(math.pi * done / epochs)) / 2
        _epoch(module, train, learning, torch.randperm(len(train), generator=generator), update)
        module.eval()
        done += 1
        reached = score(module, validation, learning.teacher)
        if reached >= best:
            best, kept = reached, _copy_state(module)
        _say(f"{name}: epoch {done} of {epochs}, validation {reached:.4f}, best {best:.4f}")
        now = time.monotonic()
        epochs = min(epochs, done + int(max(0.0, learning.deadline - now) / (now - begun)))
    module.load_state_dict(kept)
    return Fitted(best, done)


def loss_of(module: nn.Module, part: Samples, learning: Learning) -> torch.Tensor:
    """The loss of a batch.

    With labels and a teacher: weight · T² · KL(teacher ‖ student at temperature T) + (1 - weight) · cross-entropy, after
    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015). Without labels nobody can say that the
    outputs are logits: then it is the squared error to the teacher's, to which that paper's loss tends for high T.
    """
    outputs = outputs_of(module, part.inputs)
    if part.labels is None:
        wanted = _answers(_require_teacher(learning.teacher), part)
        pairs = zip(outputs, wanted, strict=True)
        return torch.stack([_relative_error(output.float(), want.float()) for output, want in pairs]).sum()
    output = outputs[0]
    classes = _classes(output, part.labels)
    hard = (
        nn.functional.cross_entropy(output, part.labels)
        if classes
        else nn.functional.mse_loss(output, part.labels.reshape(output.shape).to(output.dtype))
    )
    if learning.teacher is None:
        return hard
    wanted = _answers(learning.teacher, part)
    if classes:
        hot = learning.temperature
        soft = nn.functional.kl_div(
            nn.functional.log_softmax(output / hot, dim=1),
            nn.functional.log_softmax(wanted[0] / hot, dim=1),
            reduction="batchmean",
            log_target=True,
        ) * (hot * hot)
    else:
        soft = nn.functional.mse_loss(output, wanted[0])
    return learning.soft_label_weight * soft + (1 - learning.soft_label_weight) * hard


def _epoch(
    module: nn.Module,
    train: Samples,
    learning: Learning,
    order: torch.Tensor,
    update: Callable[[], None],
) -> None:
    module.train()
    # A batch of one would leave batch normalization without a variance.
    size = learning.batch_size if len(order) % learning.batch_size != 1 else learning.batch_size + 1
    for part in _batches(train, order, size):
        module.zero_grad()
        torch.autograd.backward(loss_of(module, part, learning))
        update()
        if time.monotonic() >= learning.deadline:
            return


def _batches(samples: Samples, order: torch.Tensor, size: int) -> Iterator[Samples]:
    for start in range(0, len(order), size):
        yield samples.rows(order[start : start + size])


def _answers(teacher: nn.Module, part: Samples) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return outputs_of(teacher, part.inputs)


def _relative_error(output: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Squared error as a share of the wanted output's own power, so that each output counts alike."""
    return nn.functional.mse_loss(output, wanted) / wanted.square().mean().clamp_min(1e-12)


def _classes(output: torch.Tensor, labels: torch.Tensor) -> bool:
    return output.ndim == _CLASS_AXES and labels.ndim == 1 and not labels.is_floating_point()


def _require_teacher(teacher: nn.Module | None) -> nn.Module:
    if teacher is None:
        raise CannotDo("there are no labels and no teacher: nothing can be learned")
    return teacher


def _copy_state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 -- a build's progress
