"""Machine code for this very processor, compiled ahead of time by torch's AOTInductor."""

from __future__ import annotations

import warnings
from pathlib import Path

from penstock_optimizer.building import forms
from penstock_optimizer.building.draft import BuildContext, CannotDo, Draft


def compile_ahead(draft: Draft, context: BuildContext, *, tuned: bool = False) -> Path:
    """Compile the draft's program ahead of time.

    Returns:
        A `.pt2` package of machine code. It fits this processor only.

    Raises:
        CannotDo: Inductor cannot compile it.
    """
    import torch  # noqa: PLC0415 -- torch takes seconds
    import torch._inductor.config as inductor  # noqa: PLC0415 -- as above

    from penstock_optimizer.sources.torch_program import Inputs, Positional, export  # noqa: PLC0415 -- as above
    from penstock_runtime.engines.torch_program import on_device  # noqa: PLC0415 -- as above

    target = context.work / "compiled.pt2"
    inputs = forms.example_inputs(draft, context)
    device = (draft.engine or context.engine).options.get("device", "cpu")
    program = on_device(forms.load_program(draft, context), device)
    tensors = tuple(tensor.to(device) for tensor in inputs.tensors.values())
    if inputs.keywords:  # a package is called by position
        inner = program.module(check_guards=False)
        placed = dict(zip(inputs.tensors, tensors, strict=True))
        program = export(Positional(inner, inputs), Inputs(placed, len(tensors)))
    program.example_inputs = (tensors, {})
    # Headers compiled beforehand pay where they are used again; a build's folder, with its caches, ends with it.
    once = {"aot_inductor.precompile_headers": False, "cpp_cache_precompile_headers": False}
    options = {"freezing": True, "max_autotune": tuned, "compile_threads": 1, **once}
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad(), inductor.patch(options):
            torch._inductor.aoti_compile_and_package(program, package_path=str(target))  # noqa: SLF001 -- torch's documented name for it
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CannotDo(f"Inductor cannot compile the model: {first[:400]}") from error
    return target
