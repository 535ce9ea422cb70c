"""What an engine loads, made from a draft: a writer for each format. A format of a further engine has its line in `_WRITERS`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from penstock.engines import ENGINES
from penstock.optimization.recipes import EngineName
from penstock.serving.manifest import ModelFormat
from penstock_optimizer.building import litert
from penstock_optimizer.building.draft import BuildContext, Draft
from penstock_optimizer.building.forms import as_exported, as_onnx, as_openvino, example_inputs
from penstock_optimizer.building.inductor import compile_ahead


def missing_converter(engine: EngineName) -> str | None:
    """What is missing here to make an engine's format, and what would help; None where it can be tried."""
    return litert.missing_environment() if ENGINES[engine].given is ModelFormat.LITERT else None


def deliver(draft: Draft, context: BuildContext, folder: Path) -> tuple[ModelFormat, str]:
    """Write what the engine loads into a folder.

    Returns:
        The format, and the entry point's name.

    Raises:
        CannotDo: the engine's form cannot be made.
    """
    made = ENGINES[(draft.engine or context.engine).name].given
    return made, _WRITERS[made](draft, context, folder)


def _onnx(draft: Draft, context: BuildContext, folder: Path) -> str:
    """An ONNX file with its external data, which keeps its name."""
    from penstock_optimizer.sources.onnx import external_files  # noqa: PLC0415 -- only where it is asked for

    path = as_onnx(draft, context)
    for file in external_files(path):
        shutil.copyfile(file, folder / file.name)
    shutil.copyfile(path, folder / "model.onnx")
    return "model.onnx"


def _openvino(draft: Draft, context: BuildContext, folder: Path) -> str:
    path = as_openvino(draft, context)
    shutil.copyfile(path.with_suffix(".bin"), folder / "model.bin")
    shutil.copyfile(path, folder / "model.xml")
    return "model.xml"


def _program(draft: Draft, context: BuildContext, folder: Path) -> str:
    """Torch's program, or machine code where the engine runs that alone."""
    native = ENGINES[(draft.engine or context.engine).name].native
    path = compile_ahead(draft, context) if native and not draft.compiled else as_exported(draft, context)
    shutil.copyfile(path, folder / "model.pt2")
    return "model.pt2"


def _litert(draft: Draft, context: BuildContext, folder: Path) -> str:
    program = as_exported(draft, context)
    litert.convert(program, example_inputs(draft, context), folder / "model.tflite", context.deadline)
    return "model.tflite"


_WRITERS: Final[Mapping[ModelFormat, Callable[[Draft, BuildContext, Path], str]]] = {
    ModelFormat.ONNX: _onnx,
    ModelFormat.OPENVINO: _openvino,
    ModelFormat.TORCH_EXPORT: _program,
    ModelFormat.LITERT: _litert,
}
