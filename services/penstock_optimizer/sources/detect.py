"""Which file of a path is the model, and which format it has: told by content, never by name. Loads nothing."""

from __future__ import annotations

import json
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO, Final

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.manifest import MANIFEST_NAME, ModelFormat, ModelManifest
from penstock_runtime.protobuf import MalformedError, Wire

PICKLE_REFUSED: Final = "PickleRefused"

MODEL_SUFFIXES: Final = (".onnx", ".safetensors", ".pt2", ".pt", ".pth", ".bin", ".pkl", ".pickle")
"""Of a folder without a manifest: what may be the model, the likeliest first."""
_LONGEST_HEADER: Final = 100_000_000
"""That safetensors itself allows, in bytes."""
_PICKLE_MARK: Final = b"\x80"
_PICKLE_PROTOCOLS: Final = range(2, 6)
_HEAD: Final = 4096
_MODEL_PROTO_FIELDS: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
_GRAPH_FIELD: Final = 7


def locate(path: Path) -> Path:
    """The model's file: the path itself, a manifest's entry point, or the one model in a folder.

    Raises:
        Invalid: nothing is there, or more than one file could be the model.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise Invalid(Reason.MODEL_NOT_FOUND, f"{path} is neither a file nor a folder")
    if (path / MANIFEST_NAME).is_file():
        return _entrypoint(path)
    for suffix in MODEL_SUFFIXES:
        found = sorted(each for each in path.iterdir() if each.suffix == suffix and each.is_file())
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(each.name for each in found)
            raise Invalid(
                Reason.MODEL_INVALID, f"{path} has several models ({names}): name the file, or add {MANIFEST_NAME}"
            )
    raise Invalid(
        Reason.MODEL_NOT_FOUND,
        f"{path} has no {MANIFEST_NAME} and no file that ends in {', '.join(MODEL_SUFFIXES[:3])}",
    )


def _entrypoint(folder: Path) -> Path:
    try:
        manifest = ModelManifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise Invalid(Reason.MODEL_INVALID, f"{folder / MANIFEST_NAME}: {where}: {problem['msg']}") from error
    entry = folder / manifest.entrypoint
    if not entry.resolve().is_relative_to(folder.resolve()) or not entry.is_file():
        raise Invalid(
            Reason.MODEL_NOT_FOUND, f"{folder / MANIFEST_NAME} names {manifest.entrypoint}, which is not there"
        )
    return entry


def detect(path: Path) -> ModelFormat:
    """The format of a model file.

    Raises:
        Invalid: PickleRefused for a pickle; ModelInvalid where it is nothing that can be optimized.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        size = path.stat().st_size
        if _is_safetensors(head, file, size):
            return ModelFormat.SAFETENSORS
        if head[4:8] == b"TFL3":
            raise Invalid(
                Reason.MODEL_INVALID, f"{path.name} is a LiteRT model, which is an end: give the model it came from"
            )
        if zipfile.is_zipfile(path):
            return _archive(path)
        if head[:1] == _PICKLE_MARK and len(head) > 1 and head[1] in _PICKLE_PROTOCOLS:
            raise _pickle_error(path)
        if head.lstrip()[:5] in {b"<?xml", b"<net "}:
            raise Invalid(
                Reason.MODEL_INVALID, f"{path.name} is XML, as OpenVINO's IR: give the ONNX or torch model it came from"
            )
        if _is_onnx(file, size):
            return ModelFormat.ONNX
    if _is_text_pickle(head):
        raise _pickle_error(path)
    raise Invalid(
        Reason.MODEL_INVALID,
        f"{path.name} is neither ONNX, torch export (.pt2), safetensors nor TorchScript, or not all of it: copy it again, or export the "
        "model as one of them",
    )


def _pickle_error(path: Path) -> Invalid:
    return Invalid(
        PICKLE_REFUSED,
        f"{path.name} is a pickle: loading it would run whatever code it holds, so it is never loaded. Where you trust"
        " it, convert it once, on your own machine: `from safetensors.torch import save_file; import torch` and"
        f" `save_file(torch.load({path.name!r}, weights_only=True), 'model.safetensors')` (for a whole module, its"
        " .state_dict()); then give model.safetensors with the import path of the module's code",
    )


def _is_safetensors(head: bytes, file: BinaryIO, size: int) -> bool:
    """Eight bytes of length, little-endian, and a JSON object so long."""
    if len(head) < 10 or head[8:9] != b"{":  # noqa: PLR2004 -- the length, and "{}"
        return False
    (length,) = struct.unpack("<Q", head[:8])
    if length > min(size - 8, _LONGEST_HEADER):
        return False
    file.seek(8)
    try:
        return isinstance(json.loads(file.read(length)), dict)
    except ValueError:
        return False


def _archive(path: Path) -> ModelFormat:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            inner = {name.partition("/")[2]: name for name in names}
            kind = archive.read(inner["archive_format"]) if "archive_format" in inner else b""
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise Invalid(Reason.MODEL_INVALID, f"{path.name} is a damaged archive: {error}") from error
    if kind == b"pt2":
        return ModelFormat.TORCH_EXPORT
    if "serialized_exported_program.json" in names:
        raise Invalid(
            PICKLE_REFUSED,
            f"{path.name} is a torch export of before 2.8, whose weights are pickled: load and save it with a newer torch",
        )
    if "data.pkl" in inner and "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return ModelFormat.TORCHSCRIPT
    if any(name.endswith(".pkl") for name in names):
        raise _pickle_error(path)
    raise Invalid(
        Reason.MODEL_INVALID, f"{path.name} is an archive without a torch program: give ONNX, .pt2 or safetensors"
    )


def _is_onnx(file: BinaryIO, size: int) -> bool:
    """Whether the top level is a `ModelProto`: its fields only, a graph among them, to the last byte.

    After onnx.proto's field numbers.
    """
    wire, seen = Wire(file, size), set()
    try:
        for tag, _, _ in wire.fields((0, size)):
            if tag >> 3 not in _MODEL_PROTO_FIELDS:
                return False
            seen.add(tag >> 3)
    except MalformedError:
        return False
    return _GRAPH_FIELD in seen


def _is_text_pickle(head: bytes) -> bool:
    """Whether it reads as protocol 0 or 1: several operations in a row. They are listed, not run."""
    operations = 0
    try:
        for _ in pickletools.genops(head):
            operations += 1
    except (ValueError, UnicodeDecodeError, IndexError, struct.error):
        return operations >= 4  # noqa: PLR2004 -- chance seldom goes that far
    return operations > 1
