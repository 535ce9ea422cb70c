"""From a torch module or program to the forms that steps need: `.pt2` and ONNX, both checked against its own outputs."""

from __future__ import annotations

import inspect
import itertools
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import onnxruntime
import torch
from torch.export import Dim, ExportedProgram

from penstock.errors import Invalid
from penstock_optimizer.accuracy.likeness import difference_between
from penstock_optimizer.sources.examples import ROWS, Examples
from penstock_optimizer.sources.opening import EXPORT_FAILED, EXPORTED_FILE, ONNX_FILE
from penstock_runtime.engines import Array

_MOST_MIXED: Final = 4
"""Inputs whose kinds are tried in all combinations."""

Outputs = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Example inputs of a module, by the names that the ONNX form gets."""

    tensors: Mapping[str, torch.Tensor]
    leading: int = 0
    """How many, from the first, are given by position; the others by name."""

    @property
    def arguments(self) -> tuple[torch.Tensor, ...]:
        """Positional."""
        return tuple(self.tensors.values())[: self.leading]

    @property
    def keywords(self) -> dict[str, torch.Tensor]:
        """By name."""
        return dict(list(self.tensors.items())[self.leading :])

    def first(self, rows: int) -> Inputs:
        """So many rows of each."""
        return Inputs({name: tensor[:rows] for name, tensor in self.tensors.items()}, self.leading)


class Positional(torch.nn.Module):
    """A module that takes all its inputs by position, and perhaps computes in a lower precision.

    Args:
        inner: takes `inputs` as they are given.
        inputs: its example inputs.
        inside: floats are cast to it on the way in, and back to fp32 on the way out; None: left alone.
    """

    def __init__(self, inner: torch.nn.Module, inputs: Inputs, inside: torch.dtype | None = None) -> None:
        super().__init__()
        self.inner = inner
        self._leading = inputs.leading
        self._names = list(inputs.tensors)[inputs.leading :]
        self._inside = inside

    def forward(self, *given: torch.Tensor) -> Any:
        """What the inner module gives."""
        inside = self._inside
        if inside is not None:
            given = tuple(each.to(inside) if each.is_floating_point() else each for each in given)
        result = self.inner(*given[: self._leading], **dict(zip(self._names, given[self._leading :], strict=True)))
        if inside is None:
            return result
        return torch.utils._pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.float(), result)  # noqa: SLF001 -- torch has no public name for it


def bind(module: torch.nn.Module, examples: Examples) -> Inputs:
    """Example inputs for a module: from data whose arrays are named by the forward method's arguments, or from shapes.

    A module that needs one argument takes the only array whatever its name is, and that becomes the input's name.

    Raises:
        Invalid: the names do not fit, or there are neither data nor shapes.
    """
    required, known = _arguments(module)
    given = list(examples.arrays or examples.shapes)
    if set(required) <= set(given):
        return fill(module, [name for name in known if name in given], 0, examples)
    return fill(module, required, len(required), examples)


def fill(module: torch.nn.Module, names: Sequence[str], leading: int, examples: Examples) -> Inputs:
    """Example inputs by given names, of which so many are given by position.

    Raises:
        Invalid: DataNeeded, or DataInvalid where the data names them otherwise.
    """
    given = list(examples.arrays or examples.shapes)
    if not given:
        raise Invalid(
            "DataNeeded",
            f"tracing the module needs an example of {_list_names(names)}: give samples (--data, or dataUri in a deployment's "
            f"spec.model), or the lengths of its axes without the first (--shape {next(iter(names), 'NAME')}=3x224x224)",
        )
    if len(names) == len(given) == leading == 1:
        names = given
    if not names or not set(names) <= set(given):
        raise Invalid(
            "DataInvalid",
            f"the module takes {_list_names(names)} and the data has {_list_names(given)}: name the arrays by the arguments",
        )
    if examples.arrays:
        return Inputs({name: torch.from_numpy(examples.arrays[name]) for name in names}, leading)
    return _make_inputs(module, {name: tuple(examples.shapes[name]) for name in names}, leading)


def program_inputs(program: ExportedProgram, names: Sequence[str], arrays: Mapping[str, Array]) -> Inputs:
    """Example inputs of a program by the names of its ONNX form, which are in the program's order."""
    arguments = program.call_spec.in_spec.children()[0]
    return Inputs({name: torch.from_numpy(arrays[name]) for name in names}, arguments.num_leaves)


def run(module: torch.nn.Module, inputs: Inputs) -> Outputs:
    """A module's outputs by name: its own `output_names`, a mapping's keys, or `output` and a number.

    Raises:
        Invalid: it fails, or gives other things than tensors.
    """
    try:
        with torch.no_grad():
            given = module(*inputs.arguments, **inputs.keywords)
    except Exception as error:  # whatever a user's code raises
        raise Invalid(EXPORT_FAILED, f"the module fails on an example: {type(error).__name__}: {error}") from error
    names = getattr(module, "output_names", None)
    if isinstance(given, Mapping):
        values = dict(given)
    elif isinstance(given, torch.Tensor):
        values = {(names or ["output"])[0]: given}
    elif isinstance(given, Sequence):
        values = dict(zip(names or [f"output_{place}" for place in range(len(given))], given, strict=False))
    else:
        values = {"": given}
    if not values or not all(isinstance(value, torch.Tensor) for value in values.values()):
        raise Invalid(EXPORT_FAILED, "the module gives other things than tensors: wrap it in one that gives tensors")
    return {str(name): value.detach() for name, value in values.items()}


def export(module: torch.nn.Module, inputs: Inputs) -> ExportedProgram:
    """Capture a module with a dynamic batch axis, or with a fixed one where the module allows no other.

    Raises:
        Invalid: torch cannot capture it.
    """
    problems = []
    for batch in (Dim("batch", min=1), Dim.DYNAMIC, None):
        axes = {0: batch} if batch is not None else None
        shapes: Any = dict.fromkeys(inputs.tensors, axes)
        if isinstance(module, Positional):
            shapes = ((axes,) * len(inputs.tensors),)  # one argument, which takes all
        elif inputs.leading:
            shapes = (axes,) * len(inputs.tensors)
        try:
            with warnings.catch_warnings(action="ignore"), torch.no_grad():
                return torch.export.export(
                    module, inputs.arguments, inputs.keywords, dynamic_shapes=shapes, strict=False
                )
        except Exception as error:  # noqa: BLE001 -- torch.export raises what it likes; the last is told
            problems.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
    raise Invalid(EXPORT_FAILED, f"torch cannot capture the module ({problems[0]}): rewrite it, or give ONNX")


def save(program: ExportedProgram, path: Path) -> None:
    """Write a `.pt2` without example inputs: torch pickles those, and so the file holds no pickle."""
    program.example_inputs = None
    with warnings.catch_warnings(action="ignore"):
        torch.export.save(program, path)


def write_forms(program: ExportedProgram, inputs: Inputs, wanted: Outputs, output: Path) -> None:
    """Write ONNX and `.pt2` into a folder, and check both against the outputs that the source itself gave.

    Raises:
        Invalid: ExportFailed or ExportDiffers.
    """
    write_onnx(program, list(inputs.tensors), list(wanted), output / ONNX_FILE)
    save(program, output / EXPORTED_FILE)
    captured = run(program.module(), inputs)
    _compare("the captured program", list(wanted.values()), [_values(value) for value in captured.values()])
    check_onnx(output / ONNX_FILE, inputs, wanted)


def write_onnx(program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str], path: Path) -> None:
    """Convert a program, by torch's dynamo exporter.

    Raises:
        Invalid: an operator has no ONNX counterpart.
    """
    # The exporter warns of each optional operator library (torchvision) that is not installed.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            converted = torch.onnx.export(
                program, dynamo=True, input_names=list(inputs), output_names=list(outputs), verbose=False
            )
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Invalid(EXPORT_FAILED, f"torch cannot convert the program to ONNX: {first}") from error
    if converted is None:
        raise Invalid(EXPORT_FAILED, "torch gave no ONNX program")
    # Protobuf holds at most 2 GiB.
    large = sum(tensor.nbytes for tensor in program.state_dict.values()) > (3 << 29)
    converted.save(str(path), external_data=large)


def check_onnx(path: Path, inputs: Inputs, wanted: Outputs) -> None:
    """Compare ONNX Runtime's outputs with the source's, on all rows and, where the batch is dynamic, on one.

    Raises:
        Invalid: ExportDiffers, with the largest difference.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    dynamic = not isinstance(session.get_inputs()[0].shape[0], int)
    for rows in {ROWS, 1} if dynamic else {ROWS}:
        feed = {name: tensor.numpy() for name, tensor in inputs.first(rows).tensors.items()}
        got = session.run(list(wanted), feed)
        _compare("the ONNX form", [value[:rows] for value in wanted.values()], got)


def _compare(what: str, wanted: Sequence[torch.Tensor], got: Sequence[Array]) -> None:
    for ours, theirs in zip((_values(value) for value in wanted), got, strict=True):
        problem = difference_between(ours, theirs)
        if problem is not None:
            raise Invalid("ExportDiffers", f"{what} differs from the source: {problem}")


def _values(tensor: torch.Tensor) -> Array:
    """As numpy has them: it knows no bfloat16."""
    given: Array = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()
    return given


def _arguments(module: torch.nn.Module) -> tuple[list[str], list[str]]:
    """Names of the forward method's arguments: those it needs, and all."""
    if isinstance(module, torch.jit.ScriptModule):
        named = cast("Any", module.forward).schema.arguments[1:]
        return [each.name for each in named if not each.has_default_value()], [each.name for each in named]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = [each for each in inspect.signature(module.forward).parameters.values() if each.kind in kinds]
    required = [each.name for each in parameters if each.default is inspect.Parameter.empty]
    return required, [each.name for each in parameters]


def _make_inputs(module: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]], leading: int) -> Inputs:
    """Inputs of given shapes that the module takes: floats, or small 64-bit integers for those that are ids.

    Ones first, and then zeros, which every table has.

    Raises:
        Invalid: DataNeeded: it takes none of them.
    """
    names = list(shapes)
    kinds = itertools.product((False, True), repeat=min(len(names), _MOST_MIXED))
    problem = ""
    for whole, value in itertools.product(kinds, (1, 0)):
        # Beyond a few inputs, the last ones are all of one kind.
        flags = dict(zip(names, (*whole, *[whole[-1]] * (len(names) - len(whole))), strict=True))
        tensors = {
            name: torch.full((ROWS, *shape), value, dtype=torch.int64) if flags[name] else torch.randn(ROWS, *shape)
            for name, shape in shapes.items()
        }
        made = Inputs(tensors, leading)
        try:
            with torch.no_grad():
                module(*made.arguments, **made.keywords)
        except Exception as error:  # noqa: BLE001 -- whatever a user's code raises: then it takes others
            problem = problem or f"{type(error).__name__}: {error}"
        else:
            return made
    raise Invalid(
        "DataNeeded",
        f"no data was given, and inputs that were made up do not suit the module ({problem[:240]}): give --data, a .npz with "
        f"{_list_names(names)}",
    )


def _list_names(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"
