"""compile: machine code for this very processor, by torch's Inductor.

Parameters:
    mode (Default or MaxAutotune; Default): MaxAutotune times further kernels while it compiles.

TorchExport gets a package that AOTInductor compiled ahead of time, with the weights frozen in. TorchCompile compiles when
it is loaded: the step only sets its mode.
"""

from __future__ import annotations

from typing import Final

from penstock.engines import ENGINES, engines_where
from penstock.optimization.recipes import EngineName, Step
from penstock.wording import join_with_or
from penstock_optimizer.building import forms
from penstock_optimizer.building.draft import BuildContext, Draft
from penstock_optimizer.building.inductor import compile_ahead
from penstock_optimizer.steps.parameters import Parameters
from penstock_runtime.engines.compiler import missing_compiler

_DEFAULTS: Final = {"mode": "Default"}
_MODES: Final = ("Default", "MaxAutotune")


class Compile:
    """Inductor's."""

    def why_infeasible(self, step: Step, context: BuildContext) -> str | None:
        """For the two engines that compile, where there is a compiler."""
        Parameters(step, _DEFAULTS).choice("mode", _MODES)
        if not ENGINES[context.engine.name].compiles:
            able = join_with_or(engines_where(lambda engine: engine.compiles))
            return f"{context.engine.name} runs nothing that torch compiled: use {able}"
        return missing_compiler()

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """Compile, or say how to."""
        tuned = Parameters(step, _DEFAULTS).choice("mode", _MODES) == "MaxAutotune"
        engine = draft.engine or context.engine
        if engine.name is EngineName.TORCH_COMPILE:
            forms.as_exported(draft, context)
            mode = {"mode": "max-autotune" if tuned else "default"}
            draft.engine = engine.model_copy(update={"options": {**engine.options, **mode}})
        else:
            forms.set_exported(draft, compile_ahead(draft, context, tuned=tuned))
            draft.compiled = True
