"""`.pt2`, as `torch.export.save` writes it.

torch's own reader unpickles example inputs (first with `weights_only`, then, where that fails, without), tensor
subclasses and custom objects, and runs compiled code. So what is unpickled or compiled is refused, example inputs are
dropped before torch sees the file, and the rest, whose shape expressions torch evaluates, is read in the sandbox.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Final

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock_optimizer.sources.detect import PICKLE_REFUSED
from penstock_optimizer.sources.examples import Examples
from penstock_optimizer.sources.opening import EXPORT_FAILED, Opened, Opening
from penstock_optimizer.sources.torch_program import Inputs, export, fill, run, write_forms

_SAMPLE_INPUTS: Final = "data/sample_inputs/"
_COMPILED: Final = "data/aotinductor/"
_CONFIGS: Final = ("data/weights/", "data/constants/")
_OBJECTS: Final = ("custom_obj_", "opaque_obj_")
_WRITERS_OWN: Final = (".data/", "version", "byteorder")


class TorchExportSource:
    """A program."""

    def open(self, opening: Opening) -> Opened:
        """Read the program, give it a dynamic batch axis where it allows one, and write its forms."""
        program = read(opening.entry, opening.work)
        module = program.module(check_guards=False)
        inputs = _bound(program, module, opening.examples)
        wanted = run(module, inputs)
        write_forms(_recapture(program, module, inputs), inputs, wanted, opening.output)
        return Opened(sum(parameter.numel() for parameter in program.parameters()))


def read(path: Path, work: Path) -> ExportedProgram:
    """Read a program without unpickling anything.

    Raises:
        Invalid: PickleRefused, or ModelInvalid.
    """
    check_archive(path)
    stripped = work / "stripped.pt2"
    reader = PT2ArchiveReader(str(path))
    with PT2ArchiveWriter(str(stripped)) as writer:
        for name in reader.get_file_names():
            if not name.startswith(_WRITERS_OWN):
                writer.write_bytes(name, b"" if name.startswith(_SAMPLE_INPUTS) else reader.read_bytes(name))
    try:
        return torch.export.load(str(stripped))
    except Exception as error:  # torch.export raises what it likes
        raise Invalid(
            Reason.MODEL_INVALID, f"torch cannot read {path.name}: {type(error).__name__}: {error}"
        ) from error


def check_archive(path: Path) -> None:
    """Refuse an archive that torch would unpickle or run, without loading any of it.

    Raises:
        Invalid: PickleRefused, or ModelInvalid.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            name = entry.partition("/")[2]
            if name.startswith(_COMPILED):
                raise Invalid(
                    Reason.MODEL_INVALID,
                    f"{path.name} is compiled for one machine: give the program as torch.export.save wrote it",
                )
            if name.startswith(_CONFIGS):
                _check_payload(path, name, archive.read(entry) if name.endswith(".json") else None)


def _check_payload(path: Path, name: str, config: bytes | None) -> None:
    file = name.rsplit("/", 1)[1]
    pickled = file.startswith(_OBJECTS) or file.endswith(".pt")
    if config is not None:
        try:
            payloads = json.loads(config)["config"].values()
            pickled = any(each.get("use_pickle", True) for each in payloads)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise Invalid(Reason.MODEL_INVALID, f"{path.name}: {name} is damaged") from error
    if pickled:
        raise Invalid(
            PICKLE_REFUSED,
            f"{path.name} holds pickled objects ({name}), and loading those would run whatever code they hold: export a"
            " module of plain tensors, or give ONNX",
        )


def _bound(program: ExportedProgram, module: torch.nn.Module, examples: Examples) -> Inputs:
    """Inputs as the program was captured with them, by position and by name.

    Raises:
        Invalid: ModelInvalid where it takes nested structures, or others than tensors.
    """
    arguments, keywords = program.call_spec.in_spec.children()
    placed = [str(name) for name in program.graph_signature.user_inputs]
    names = [*placed[: arguments.num_leaves], *(str(key) for key in keywords.context or ())]
    if len(names) != len(placed) or arguments.num_leaves != len(arguments.children()):
        raise Invalid(
            Reason.MODEL_INVALID, "the program takes nested structures: export a module that takes tensors only"
        )
    return fill(module, names, arguments.num_leaves, examples)


def _recapture(program: ExportedProgram, module: torch.nn.Module, inputs: Inputs) -> ExportedProgram:
    """The program with a dynamic batch axis; as it is, where it has one or allows none."""
    if program.range_constraints:
        return program
    try:
        return export(module, inputs)
    except Invalid as error:
        if error.reason != EXPORT_FAILED:
            raise
        return program
