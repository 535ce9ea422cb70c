"""What is in a `.pt2` file, before torch looks at it.

`torch.export.load` unpickles what the archive says is pickled (with `weights_only=False`), and loads machine code that
lies in it. So an archive with either is refused: `torch.export.save` writes ordinary weights as plain bytes. Example
inputs are pickled in any case; they may name what rebuilds a tensor, and nothing else.
"""

from __future__ import annotations

import io
import json
import pickletools
import zipfile
from pathlib import Path
from typing import Any, Final

from penstock.api.conditions import Reason
from penstock.errors import Invalid

_REBUILDING: Final = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch FloatStorage", "torch DoubleStorage", "torch HalfStorage", "torch BFloat16Storage",
        "torch LongStorage", "torch IntStorage", "torch ShortStorage", "torch CharStorage", "torch ByteStorage",
        "torch BoolStorage",
    }
)  # fmt: skip
_CODE: Final = (".so", ".o", ".cpp", ".cubin", ".py")


def refuse_code(path: Path) -> None:
    """Check that loading a `.pt2` file runs no code from it.

    Raises:
        Invalid: ModelInvalid, naming what is in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                _check(archive, name, path)
    except (zipfile.BadZipFile, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise Invalid(
            Reason.MODEL_INVALID, f"torch cannot load {path.name}: it is no archive of torch.export.save: {error}"
        ) from error


def _check(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    if name.endswith(_CODE):
        raise _refused(path, f"holds machine code or source ({name})", "export the program with torch.export.save")
    if name.endswith(("_weights_config.json", "_constants_config.json")):
        config: dict[str, Any] = json.loads(archive.read(name))
        pickled = [tensor for tensor, entry in config["config"].items() if entry.get("use_pickle", True)]
        if pickled:
            raise _refused(
                path, f"has pickled tensors ({pickled[0]})", "make them plain contiguous tensors, and export again"
            )
    elif name.endswith(".pt") and archive.getinfo(name).file_size:  # empty: it was saved without example inputs
        _check_pickles(archive.read(name), name, path)


def _check_pickles(body: bytes, name: str, path: Path) -> None:
    """The pickles in a file of `torch.save` may only rebuild tensors."""
    with zipfile.ZipFile(io.BytesIO(body)) as inner:
        for member in inner.namelist():
            if member.endswith("/data.pkl"):
                for opcode, argument, _ in pickletools.genops(inner.read(member)):
                    if opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4") or (
                        opcode.name == "GLOBAL" and argument not in _REBUILDING
                    ):
                        raise _refused(
                            path,
                            f"has a pickle in {name} that names {argument or opcode.name}",
                            "export it with example inputs that are plain tensors",
                        )


def _refused(path: Path, what: str, remedy: str) -> Invalid:
    return Invalid(Reason.MODEL_INVALID, f"{path.name} {what}, which would run when it is loaded: {remedy}")
