"""compile: machine code for this very processor, by torch's Inductor.

Parameters:
    mode (Default or MaxAutotune; Default): MaxAutotune times further kernels while it compiles.

TorchExport gets a package that AOTInductor compiled ahead of time, with the weights frozen in. TorchCompile compiles when
it is loaded: the step only sets its mode.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

from penstock.optimization.recipes import EngineName, Step
from penstock_optimizer.building import forms
from penstock_optimizer.steps import CannotDo, Context, Draft
from penstock_optimizer.steps.parameters import Parameters
from penstock_runtime.engines.compiler import missing_compiler

_DEFAULTS: Final = {"mode": "Default"}
_MODES: Final = ("Default", "MaxAutotune")


class Compile:
    """Inductor's."""

    def infeasible(self, step: Step, context: Context) -> str | None:
        """For the two engines that compile, where there is a compiler."""
        Parameters(step, _DEFAULTS).choice("mode", _MODES)
        if context.engine.name not in (EngineName.TORCH_COMPILE, EngineName.TORCH_EXPORT):
            return f"{context.engine.name} runs nothing that torch compiled: use TorchExport or TorchCompile"
        return missing_compiler()

    def apply(self, step: Step, draft: Draft, context: Context) -> None:
        """Compile, or say how to."""
        tuned = Parameters(step, _DEFAULTS).choice("mode", _MODES) == "MaxAutotune"
        engine = draft.engine or context.engine
        if engine.name is EngineName.TORCH_COMPILE:
            forms.as_exported(draft, context)
            mode = {"mode": "max-autotune" if tuned else "default"}
            draft.engine = engine.model_copy(update={"options": {**engine.options, **mode}})
        else:
            path = package(draft, context, tuned=tuned)
            forms.set_exported(draft, path)
            draft.compiled = True


def package(draft: Draft, context: Context, *, tuned: bool = False) -> Path:
    """Compile the draft's program ahead of time.

    Returns:
        A `.pt2` package of machine code. It fits this processor only.

    Raises:
        CannotDo: Inductor cannot compile it.
    """
    import torch  # noqa: PLC0415 -- torch takes seconds
    import torch._inductor.config as inductor  # noqa: PLC0415 -- as above

    from penstock_optimizer.sources.torch_program import Inputs, Positional, export  # noqa: PLC0415 -- as above

    target = context.work / "compiled.pt2"
    inputs = forms.example_inputs(draft, context)
    program = forms.load_program(draft, context)
    tensors = tuple(inputs.tensors.values())
    if inputs.keywords:  # a package is called by position
        inner = program.module(check_guards=False)
        program = export(Positional(inner, inputs), Inputs(inputs.tensors, len(tensors)))
    program.example_inputs = (tensors, {})
    options = {"freezing": True, "max_autotune": tuned, "compile_threads": 1}
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad(), inductor.patch(options):
            torch._inductor.aoti_compile_and_package(program, package_path=str(target))  # noqa: SLF001 -- torch's documented name for it
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CannotDo(f"Inductor cannot compile the model: {first[:400]}") from error
    return target
