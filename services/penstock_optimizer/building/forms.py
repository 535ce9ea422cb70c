"""The forms of a draft: a step asks for the one that it needs, and sets the one that it made.

from penstock_optimizer.building import forms
module = forms.as_module(draft, context)      # the source's, or what the step before made
...
forms.set_module(draft, module)               # the other forms are made anew from it where they are needed
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

from penstock.errors import Invalid
from penstock_optimizer.building.draft import BuildContext, CannotDo, Draft
from penstock_optimizer.samples.arrays import LABELS, as_engine_takes, read
from penstock_runtime.engines import Array

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from penstock_optimizer.sources.torch_program import Inputs

_ROWS: Final = 3


def source_draft(context: BuildContext) -> Draft:
    """The source, before the first step."""
    exported = None if context.source.exported is None else context.source_folder / context.source.exported
    return Draft(onnx=context.source_folder / context.source.onnx, exported=exported)


def calibration(context: BuildContext, most: int) -> dict[str, Array]:
    """At most so many calibration samples by input, in order and as engines take them; without labels."""
    specs = {spec.name: spec for spec in context.source.signature.inputs}
    samples = read(Path(context.data.calibration))
    return {name: as_engine_takes(array[:most], specs[name]) for name, array in samples.items() if name != LABELS}


def set_module(draft: Draft, module: torch.nn.Module) -> None:
    """The module is the model now."""
    draft.module, draft.onnx, draft.openvino, draft.exported = module, None, None, None


def set_onnx(draft: Draft, path: Path) -> None:
    """This ONNX file is the model now."""
    draft.module, draft.onnx, draft.openvino, draft.exported = None, path, None, None


def set_openvino(draft: Draft, path: Path) -> None:
    """This OpenVINO IR is the model now."""
    draft.module, draft.onnx, draft.openvino, draft.exported = None, None, path, None


def set_exported(draft: Draft, path: Path) -> None:
    """This `.pt2` is the model now."""
    draft.module, draft.onnx, draft.openvino, draft.exported = None, None, None, path


def as_module(draft: Draft, context: BuildContext) -> torch.nn.Module:
    """The model as a torch module in fp32, in eval mode, without gradients.

    Raises:
        CannotDo: the source has no import path, or a step before made a form from which there is no way back.
    """
    if draft.module is None:
        source = context.source
        if source.import_path is None or source.weights is None:
            raise CannotDo("the model has no import path, and without its torch.nn.Module it cannot be changed so")
        if draft.onnx != context.source_folder / source.onnx:
            raise CannotDo("a step before made something that torch cannot train: put this step first")
        from penstock_optimizer.sources.safetensors import load_module  # noqa: PLC0415 -- torch takes seconds

        draft.module = load_module(source.import_path, source.python_path, context.source_folder / source.weights)
    return draft.module


def as_onnx(draft: Draft, context: BuildContext) -> Path:
    """The model as ONNX.

    Raises:
        CannotDo: a step before made OpenVINO IR, or something that ONNX cannot express.
    """
    if draft.onnx is None:
        if draft.openvino is not None or (draft.module is None and draft.exported is None):
            raise CannotDo("a step before made a form that is not ONNX, and there is no way back")
        from penstock_optimizer.sources.torch_program import check_onnx, run, write_onnx  # noqa: PLC0415 -- as above

        program, inputs = _program(draft, context)
        module = draft.module or program.module()
        path = context.work / "from-torch.onnx"
        try:
            wanted = run(module, inputs)
            outputs = [spec.name for spec in context.source.signature.outputs]
            wanted = dict(zip(outputs, wanted.values(), strict=True))
            write_onnx(program, list(inputs.tensors), outputs, path)
            check_onnx(path, inputs, wanted)
        except Invalid as error:
            raise CannotDo(f"{error.reason}: {error.message}") from error
        draft.onnx = path
    return draft.onnx


def as_exported(draft: Draft, context: BuildContext) -> Path:
    """The model as a `.pt2` program.

    Raises:
        CannotDo: neither the source nor a step before has anything of torch.
    """
    if draft.exported is None:
        if draft.module is None:
            raise CannotDo("the model is not torch's, or a step before took it out of torch: give a torch source")
        from penstock_optimizer.sources.torch_program import save  # noqa: PLC0415 -- as above

        program, _ = _program(draft, context)
        draft.exported = context.work / "from-module.pt2"
        save(program, draft.exported)
    return draft.exported


def as_openvino(draft: Draft, context: BuildContext) -> Path:
    """The model as OpenVINO IR, weights in the precision that they have.

    Raises:
        CannotDo: OpenVINO cannot convert it.
    """
    if draft.openvino is None:
        import openvino  # noqa: PLC0415 -- only where it is asked for

        path = context.work / "openvino" / "model.xml"
        path.parent.mkdir(exist_ok=True)
        try:
            openvino.save_model(openvino.convert_model(as_onnx(draft, context)), path, compress_to_fp16=False)
        except RuntimeError as error:
            raise CannotDo(f"OpenVINO cannot convert the model: {str(error).strip().splitlines()[0]}") from error
        draft.openvino = path
    return draft.openvino


def example_inputs(draft: Draft, context: BuildContext) -> Inputs:
    """A few calibration samples, as the module or the program takes them."""
    if draft.module is not None:
        return _bound(draft.module, context)
    return _inputs_of(load_program(draft, context), context)


def _bound(module: torch.nn.Module, context: BuildContext) -> Inputs:
    from penstock_optimizer.sources.examples import ROWS, Examples  # noqa: PLC0415 -- as above
    from penstock_optimizer.sources.torch_program import bind  # noqa: PLC0415 -- as above

    rows = calibration(context, ROWS)
    names = [spec.name for spec in context.source.signature.inputs]
    try:
        return bind(module, Examples({name: rows[name] for name in names}))
    except Invalid as error:
        raise CannotDo(error.message) from error


def load_program(draft: Draft, context: BuildContext) -> ExportedProgram:
    """The model as a program of torch."""
    import torch  # noqa: PLC0415 -- torch takes seconds

    with warnings.catch_warnings(action="ignore"):
        return torch.export.load(str(as_exported(draft, context)))


def _program(draft: Draft, context: BuildContext) -> tuple[ExportedProgram, Inputs]:
    from penstock_optimizer.sources.torch_program import export  # noqa: PLC0415 -- as above

    if draft.module is not None:
        inputs = _bound(draft.module, context)
        try:
            return export(draft.module, inputs), inputs
        except Invalid as error:
            raise CannotDo(error.message) from error
    program = load_program(draft, context)
    return program, _inputs_of(program, context)


def _inputs_of(program: ExportedProgram, context: BuildContext) -> Inputs:
    from penstock_optimizer.sources.torch_program import program_inputs  # noqa: PLC0415 -- as above

    names = [spec.name for spec in context.source.signature.inputs]
    return program_inputs(program, names, calibration(context, _ROWS))
