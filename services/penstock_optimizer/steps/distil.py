"""`distil`: a smaller student learns from the model, beside a control of the same size that learns from hard labels alone.

Student and control start from the same weights and run the same number of epochs; whichever does better on the validation
split is taken, and the notes say which. Without labels the control learns from the model's decisions (the largest output),
and the score is the mean cosine with the model's outputs. The test split is never looked at.

Parameters: `width`, an automatic student's share of the model's channels (0.5); `temperature` (4); `softLabelWeight` (0.7);
`epochs` (40). The student is what `PreparedSource.student_import_path` gives, else the model itself, narrower, with the
weights of the channels that are left.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from penstock.optimization.recipes import Step
from penstock_optimizer.building.draft import BuildContext, CannotDo, Draft
from penstock_optimizer.building.forms import as_module, set_module
from penstock_optimizer.steps.retraining import (
    Splits,
    number,
    share,
    splits_of,
    training_deadline,
    why_no_module,
    why_no_training,
)

if TYPE_CHECKING:
    from torch import nn

    from penstock_optimizer.steps.training import Fitted, Learning, Samples


class Distil:
    """Trains a student and its control."""

    def why_infeasible(self, step: Step, context: BuildContext) -> str | None:
        """See `StepRunner`."""
        del step
        if context.data.validation is None and not context.data.synthetic:
            return "a student is chosen on a validation split: give a validation.npz beside the test.npz"
        return why_no_module(context) or why_no_training(context)

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """See `StepRunner`."""
        from penstock_optimizer.steps.narrowing import parameter_count  # noqa: PLC0415 -- torch
        from penstock_optimizer.steps.training import Learning, fit  # noqa: PLC0415 -- torch

        teacher, splits = as_module(draft, context), splits_of(context)
        learning = Learning(
            epochs=int(number(step, "epochs", 40)),
            seed=context.seed,
            deadline=training_deadline(context, parts=2),
            teacher=teacher,
            temperature=number(step, "temperature", 4),
            soft_label_weight=min(1.0, max(0.0, number(step, "softLabelWeight", 0.7))),
        )
        student = _student(step, context, teacher, splits.train, learning)
        control = copy.deepcopy(student)
        taught = fit(student, splits.train, splits.validation, learning, name="distil: student")
        if taught.epochs == 0:
            raise CannotDo("the budget left no time for one epoch of training: give it more minutes")
        alone = _fit_control(control, splits, replace(learning, epochs=taught.epochs), context)
        before, after = parameter_count(teacher), parameter_count(student)
        draft.notes.append(f"distilled {before:,} to {after:,} parameters in {taught.epochs} epochs")
        _record(draft, taught, alone, labelled=splits.train.labels is not None)
        set_module(draft, (control if alone.score > taught.score else student).eval())


def _student(step: Step, context: BuildContext, teacher: nn.Module, train: Samples, learning: Learning) -> nn.Module:
    import torch  # noqa: PLC0415 -- only where a model is built

    from penstock_optimizer.steps.narrowing import Importance, narrow  # noqa: PLC0415 -- torch
    from penstock_optimizer.steps.training import outputs_of  # noqa: PLC0415 -- torch

    path = context.source.student_import_path
    if path is None:
        return narrow(teacher, train, 1 - share(step, "width", 0.5), Importance.MAGNITUDE, learning)
    torch.manual_seed(context.seed)
    student = _import_student(path, context.source.python_path)
    example = train.rows(torch.arange(2)).inputs
    with torch.no_grad():
        given = [tuple(output.shape) for output in outputs_of(student.eval(), example)]
        wanted = [tuple(output.shape) for output in outputs_of(teacher, example)]
    if given != wanted:
        raise CannotDo(f"the student {path} gives the shapes {given}, and the model gives {wanted}")
    return student


def _import_student(path: str, python_path: tuple[str, ...]) -> nn.Module:
    from torch import nn  # noqa: PLC0415 -- only where a model is built

    sys.path[:0] = [folder for folder in python_path if folder not in sys.path]
    module, separator, name = path.partition(":")
    if not separator:
        raise CannotDo(f"the student's import path is {path!r}: write package.module:callable")
    try:
        made = getattr(import_module(module), name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise CannotDo(f"the student {path} cannot be made: {error}") from error
    if not isinstance(made, nn.Module):
        raise CannotDo(f"the student {path} is a {type(made).__name__}: expected a torch.nn.Module")
    return made


def _fit_control(control: nn.Module, splits: Splits, learning: Learning, context: BuildContext) -> Fitted:
    """Train the control for exactly as many epochs as the student was, from labels or the teacher's decisions."""
    from penstock_optimizer.steps.training import Fitted, fit, score  # noqa: PLC0415 -- torch

    hard = replace(learning, teacher=None, deadline=context.deadline)
    if splits.train.labels is not None:
        return fit(control, splits.train, splits.validation, hard, name="distil: control")
    decided = fit(
        control,
        _label_by_teacher(splits.train, learning),
        _label_by_teacher(splits.validation, learning),
        hard,
        name="distil: control",
    )
    return Fitted(score(control, splits.validation, learning.teacher), decided.epochs)


def _label_by_teacher(samples: Samples, learning: Learning) -> Samples:
    """The samples with the teacher's decisions as labels."""
    import torch  # noqa: PLC0415 -- only where a model is built

    from penstock_optimizer.steps.training import outputs_of  # noqa: PLC0415 -- torch

    if learning.teacher is None:
        raise CannotDo("there is no teacher to decide")
    with torch.no_grad():
        found = [
            outputs_of(learning.teacher, samples.rows(rows).inputs)[0].flatten(1).argmax(dim=1)
            for rows in torch.split(torch.arange(len(samples)), 256)
        ]
    return replace(samples, labels=torch.cat(found))


def _record(draft: Draft, taught: Fitted, alone: Fitted, *, labelled: bool) -> None:
    figure = "Accuracy" if labelled else "Cosine"
    draft.figures |= {
        f"distil.validation{figure}": taught.score,
        f"distil.hardLabelControl{figure}": alone.score,
        "distil.epochs": float(taught.epochs),
    }
    scores = f"on validation {taught.score:.4f} against {alone.score:.4f}"
    if alone.score > taught.score:
        draft.notes.append(f"the control, trained on hard labels alone, is better than the student ({scores}): taken")
    else:
        draft.notes.append(f"the student is no worse than the control that was trained on hard labels alone ({scores})")
