"""Models of PyTorch: how each of its formats is loaded."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_runtime.engines import first_line, options_of
from penstock_runtime.engines.pt2_archive import refuse_code

DATATYPES: Final = {
    torch.bool: DataType.BOOL,
    torch.uint8: DataType.UINT8,
    torch.int8: DataType.INT8,
    torch.int16: DataType.INT16,
    torch.int32: DataType.INT32,
    torch.int64: DataType.INT64,
    torch.float16: DataType.FP16,
    torch.bfloat16: DataType.BF16,
    torch.float32: DataType.FP32,
    torch.float64: DataType.FP64,
}
_EAGER_OPTIONS: Final = {"importPath": "", "pythonPath": "", "device": "cpu"}
_OPTIONS: Final[Mapping[EngineName, Mapping[str, str]]] = {
    EngineName.TORCH_EAGER: _EAGER_OPTIONS,
    EngineName.TORCH_COMPILE: {**_EAGER_OPTIONS, "mode": "default"},
    EngineName.TORCH_EXPORT: {},
}


@dataclass(frozen=True)
class Program:
    """Something to call with tensors in the signature's order, and what it takes and gives."""

    call: Callable[..., Any]
    signature: Signature
    name: str
    """Of its file."""
    keywords: tuple[str, ...] = ()
    """Inputs that go by name."""


class _Described(BaseModel):
    """What a variant's or an artifact's JSON says that matters here."""

    signature: Signature


def load_program(path: Path, settings: EngineSettings, signature: Signature | None) -> Program:
    """Load a `.pt2`, TorchScript or safetensors file.

    Raises:
        Invalid: ModelInvalid.
    """
    options = read_options(settings)
    torch.set_num_threads(settings.threads)
    declared = signature or _read_signature(path)
    with refuse_errors(path):
        match path.suffix:
            case ".pt2":
                return _load_exported(path, declared, options.get("device", "cpu"))
            case ".safetensors":
                return Program(_load_imported(path, options), _require_signature(declared, path), path.name)
            case ".pt" | ".ts" | ".pth" | ".torchscript":
                module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]  # torch's own
                return Program(module, _require_signature(declared, path), path.name)
            case _:
                raise Invalid(
                    Reason.MODEL_INVALID,
                    f"torch cannot load {path.name}: it takes .pt2, .safetensors, and TorchScript as .pt",
                )


def load_package(path: Path, settings: EngineSettings, signature: Signature | None) -> Program:
    """Load what AOTInductor compiled.

    Raises:
        Invalid: ModelInvalid.
    """
    read_options(settings)
    torch.set_num_threads(settings.threads)
    declared = _require_signature(signature or _read_signature(path), path)
    with refuse_errors(path):
        package = torch._inductor.aoti_load_package(str(path))  # noqa: SLF001 -- torch's documented name for it
    return Program(package, declared, path.name)


def on_device(program: torch.export.ExportedProgram, device: str) -> torch.export.ExportedProgram:
    """The program, changed, with its weights and what it makes itself (positions, masks) there: its capture was on the CPU."""
    from torch.export.passes import move_to_device_pass  # noqa: PLC0415 -- only where there is another device

    return program if device == "cpu" else move_to_device_pass(program, device)


def _load_exported(path: Path, declared: Signature | None, device: str) -> Program:
    refuse_code(path)
    program = torch.export.load(str(path))
    if torch.cuda.is_available():  # else the engine says what is missing
        program = on_device(program, device)
    actual = _signature_of(program)
    module = program.module()
    graph: torch.fx.Graph = module.graph
    for node in list(graph.nodes):
        # They hold the types of fp32; autocast gives others.
        if node.op == "call_function" and node.target is torch.ops.aten._assert_tensor_metadata.default:  # noqa: SLF001 -- an operator's name
            graph.erase_node(node)
    module.recompile()
    names = _keywords(program, path)
    if declared is not None and (
        len(declared.inputs) != len(actual.inputs) or len(declared.outputs) != len(actual.outputs)
    ):
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{path.name} takes {len(actual.inputs)} and gives {len(actual.outputs)} tensors, but "
            f"{len(declared.inputs)} inputs and {len(declared.outputs)} outputs are declared",
        )
    return Program(module, declared or actual, path.name, names)


def _keywords(program: torch.export.ExportedProgram, path: Path) -> tuple[str, ...]:
    """Inputs that the program takes by name, after those by position."""
    spec = program.call_spec.in_spec
    if spec is None:
        return ()
    positional, keyword = spec.children()
    if any(not each.is_leaf() for each in (*positional.children(), *keyword.children())):
        raise Invalid(
            Reason.MODEL_INVALID, f"{path.name} takes nested inputs: export it with a tensor for each argument"
        )
    return tuple(map(str, keyword.context or ()))


def _signature_of(program: torch.export.ExportedProgram) -> Signature:
    """By the program's own names: its arguments', and `output_0` and so on unless it gives a dictionary."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = [_spec(str(name), values[str(name)]) for name in program.graph_signature.user_inputs]
    spec = program.call_spec.out_spec
    keys = list(spec.context) if spec is not None and spec.type is dict else None
    results = [str(name) for name in program.graph_signature.user_outputs]
    names = (
        [str(key) for key in keys]
        if keys and len(keys) == len(results)
        else [f"output_{i}" for i in range(len(results))]
    )
    outputs = [_spec(name, values[result]) for name, result in zip(names, results, strict=True)]
    return Signature(inputs=tuple(inputs), outputs=tuple(outputs))


def _spec(name: str, value: Any) -> TensorSpec:
    if not isinstance(value, torch.Tensor) or value.dtype not in DATATYPES:
        raise Invalid(Reason.MODEL_INVALID, f"'{name}' is no tensor that can be served: export with tensors only")
    axes: Sequence[int | torch.SymInt] = value.shape
    shape = tuple(axis if isinstance(axis, int) else -1 for axis in axes)
    return TensorSpec(name=name, datatype=DATATYPES[value.dtype], shape=shape)


def _load_imported(path: Path, options: Mapping[str, str]) -> nn.Module:
    """A user's module with its weights. This runs the user's code."""
    from safetensors.torch import load_file  # noqa: PLC0415 -- only for this format

    module_name, colon, attribute = options["importPath"].partition(":")
    if not colon:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{path.name} holds weights only: give the option importPath as package.module:callable",
        )
    for folder in reversed(options["pythonPath"].split(":") if options["pythonPath"] else []):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    module = getattr(importlib.import_module(module_name), attribute)()
    if not isinstance(module, nn.Module):
        raise Invalid(
            Reason.MODEL_INVALID, f"{options['importPath']} gives a {type(module).__name__}, no torch.nn.Module"
        )
    module.load_state_dict(load_file(path))
    return module.eval()


def _read_signature(path: Path) -> Signature | None:
    """What the JSON beside the file says."""
    for name in ("variant.json", "manifest.json"):
        beside = path.parent / name
        if beside.is_file():
            try:
                return _Described.model_validate_json(beside.read_bytes()).signature
            except ValidationError as error:
                raise Invalid(
                    Reason.MODEL_INVALID, f"{beside} has no signature that can be read: {first_line(error)}"
                ) from error
    return None


def _require_signature(signature: Signature | None, path: Path) -> Signature:
    if signature is None:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{path.name} does not name its tensors: put a manifest.json with a signature beside it",
        )
    return signature


def read_options(settings: EngineSettings) -> dict[str, str]:
    """Those of one of torch's engines over their defaults. Raises `Invalid` for one that it does not know."""
    return options_of(settings, _OPTIONS[settings.name])


@contextlib.contextmanager
def refuse_errors(path: Path) -> Iterator[None]:
    """Whatever loading raises means that the file is not what it should be: torch and users' code raise anything."""
    try:
        yield
    except Invalid:
        raise
    except Exception as error:
        raise Invalid(
            Reason.MODEL_INVALID, f"torch cannot use {path.name}: {type(error).__name__}: {first_line(error)}"
        ) from error
