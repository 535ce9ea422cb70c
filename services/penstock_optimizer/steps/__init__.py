"""What is done to a model. A further step, or method of one, is one file here, with its row in `penstock.optimization.recipes.STEPS`.

Steps run in the build process (`penstock_optimizer.building.variant`), so they may run a user's code, take memory and crash.
"""

from __future__ import annotations

from importlib import import_module

from penstock.optimization.recipes import STEPS
from penstock_optimizer.building.draft import StepRunner


def step_runner(label: str) -> StepRunner:
    """What does a step of this `Step.label`, such as `quantize Static`. Its module is imported, and what is heavy only when it runs.

    Raises:
        KeyError: there is no such step.
    """
    module, _, name = STEPS[label].runner.partition(":")
    runner: StepRunner = getattr(import_module(f"{__name__}.{module}"), name)()
    return runner
