"""What the steps that train have in common: whether they can, and on what."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.optimization.recipes import Step
from penstock_optimizer.building.draft import BuildContext, CannotDo

if TYPE_CHECKING:
    from penstock_optimizer.steps.training import Samples

_TRAINING_SHARE = 0.7
"""Of the time that is left; the rest is for export and for the steps that follow."""


@dataclass(frozen=True, slots=True)
class Splits:
    """What there is to learn from, and to select by."""

    train: Samples
    validation: Samples


def why_no_module(context: BuildContext) -> str | None:
    """Why there is no torch module to change, and what would help; None where there is one."""
    if context.source.import_path and context.source.weights:
        return None
    return (
        "this changes the torch module itself, and the source is a graph without one: give the weights as safetensors"
        " with an import path (package.module:callable) that gives the module"
    )


def why_no_training(context: BuildContext) -> str | None:
    """Why nothing can be trained here, and what would help; None where it can."""
    if context.data.synthetic:
        return "there is nothing to learn from: no data was given, and made samples teach nothing"
    if context.data.train is None:
        return "there is nothing to learn from: give a train.npz beside the test.npz"
    return None


def number(step: Step, name: str, default: float) -> float:
    """A parameter as a number.

    Raises:
        CannotDo: it is none.
    """
    value = step.parameters.get(name, default)
    try:
        return float(value)
    except ValueError as error:
        raise CannotDo(f"{step.label}: {name} is {value!r}: expected a number") from error


def share(step: Step, name: str, default: float) -> float:
    """A parameter that is a share.

    Raises:
        CannotDo: it is not between 0 and 1.
    """
    value = number(step, name, default)
    if not 0 < value < 1:
        raise CannotDo(f"{step.label}: {name} is {value}: expected a number between 0 and 1")
    return value


def splits_of(context: BuildContext) -> Splits:
    """The samples of a training step.

    Raises:
        CannotDo: an array is missing.
    """
    from penstock_optimizer.steps.training import load_samples  # noqa: PLC0415 -- it loads torch

    signature, data = context.source.signature, context.data
    train = load_samples(Path(data.train or data.calibration), signature)
    # Never the test split, whatever else is missing: what is selected by a split cannot be judged on it.
    return Splits(train, load_samples(Path(data.validation), signature) if data.validation else train)


def training_deadline(context: BuildContext, parts: int = 1) -> float:
    """When the first of so many equal trainings must end, on the monotonic clock."""
    now = time.monotonic()
    return now + max(0.0, context.deadline - now) * _TRAINING_SHARE / parts
