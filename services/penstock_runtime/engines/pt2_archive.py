"""What is in a `.pt2` file, before torch looks at it: a second lock, behind the signature.

torch's files are code: `torch.export.load` looks up functions by names in the file and evaluates its shape expressions with
sympy, unpickles what the archive says is pickled (with `weights_only=False`), and loads machine code that lies in it. So a
`.pt2` is opened only in the optimizer's sandbox, or where a search made and signed it; that no such file is harmless
cannot be checked. What is known to run code is refused even so: ordinary weights are plain bytes, example inputs name what
rebuilds a tensor and nothing else, expressions are arithmetic, and the archive is of the present form, in which every
reader finds the same files.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
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
_OLD: Final = (
    "serialized_exported_program.json",
    "serialized_state_dict",
    "serialized_constants",
    "serialized_example_inputs",
)
"""Files of archives of before torch 2.8, whose weights are pickles."""
_ZIP: Final = b"PK\x03\x04"
_EXPRESSION: Final = re.compile(
    r"(?:'[a-z][a-z0-9_]*'|[A-Za-z][A-Za-z0-9]*|[0-9]+(?:\.[0-9]+)?|[()\[\]+\-*/%,=<>&|~. ])*"
)
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WORDS: Final = frozenset(
    {
        "Symbol", "positive", "nonnegative", "negative", "integer", "real", "finite", "True", "False", "Integer", "Float",
        "Rational", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Abs", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not",
        "Equality", "Unequality", "LessThan", "StrictLessThan", "GreaterThan", "StrictGreaterThan", "FloorDiv", "CeilDiv",
        "ModularIndexing", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "IntTrueDiv", "FloatTrueDiv", "FloatPow",
        "PowByNatural", "RoundToInt", "RoundDecimal", "ToFloat", "TruncToInt", "TruncToFloat", "Where", "LShift", "RShift",
        "Identity", "BitwiseFn", "oo", "zoo", "nan", "precision", "evaluate", "Half", "One", "Zero", "NegativeOne",
    }
)  # fmt: skip
"""Of sympy and torch.utils._sympy.functions, by which torch writes shapes."""
_SYMBOL: Final = re.compile(r"[suzt][0-9]+|[a-z_][a-z0-9_]{0,40}")


def refuse_code(path: Path) -> None:
    """Check that loading a `.pt2` file runs no code from it.

    Raises:
        Invalid: ModelInvalid, naming what is in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            # torch finds files whatever their case; of two, another reader may see the other.
            if (
                len({each.lower() for each in names}) < len(names)
                or len({each.partition("/")[0] for each in names}) > 1
            ):
                raise _code_error(
                    path, "names a file twice, or lies in several folders", "save it with torch.export.save"
                )
            inner = {each.partition("/")[2]: each for each in names}
            if "archive_format" not in inner or archive.read(inner["archive_format"]) != b"pt2":
                raise _code_error(
                    path, "is an archive of before torch 2.8, with pickled weights", "save it with a newer torch"
                )
            for name in names:
                _check(archive, name, path)
    except (zipfile.BadZipFile, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise Invalid(
            Reason.MODEL_INVALID, f"torch cannot load {path.name}: it is no archive of torch.export.save: {error}"
        ) from error


def _check(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    if any(part in name for part in _OLD):
        raise _code_error(path, f"holds {name}, as archives of before torch 2.8", "save it with a newer torch")
    if "custom_obj" in name:
        raise _code_error(path, f"holds an object of a class of its own ({name})", "export a program of tensors")
    if "/models/" in name and name.endswith(".json"):
        _check_expressions(json.loads(archive.read(name)), name, path)
        return
    if name.endswith(_CODE):
        raise _code_error(path, f"holds machine code or source ({name})", "export the program with torch.export.save")
    if name.endswith(("_weights_config.json", "_constants_config.json")):
        config: dict[str, Any] = json.loads(archive.read(name))
        pickled = [tensor for tensor, entry in config["config"].items() if entry.get("use_pickle", True)]
        if pickled:
            raise _code_error(
                path, f"has pickled tensors ({pickled[0]})", "make them plain contiguous tensors, and export again"
            )
    elif name.endswith(".pt") and archive.getinfo(name).file_size:  # empty: it was saved without example inputs
        _check_pickles(archive.read(name), name, path)


def _check_expressions(found: Any, name: str, path: Path) -> None:
    """Every expression is arithmetic over named sizes: sympy evaluates it as Python."""
    waiting = [found]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            waiting += each.values()
            text = each.get("expr_str")
            if text is not None and not _is_arithmetic(text):
                raise _code_error(
                    path, f"has an expression in {name} that is no arithmetic ({str(text)[:60]!r})", "export it anew"
                )


def _is_arithmetic(text: Any) -> bool:
    if not isinstance(text, str) or not _EXPRESSION.fullmatch(text):
        return False
    quoted = set(re.findall(r"'([^']*)'", text))
    bare = re.sub(r"'[^']*'", "", text)
    words = set(_WORD.findall(bare))
    return all(_SYMBOL.fullmatch(each) for each in quoted) and all(
        each in _WORDS or re.fullmatch(r"[suzt][0-9]+", each) for each in words
    )


def _check_pickles(body: bytes, name: str, path: Path) -> None:
    """The pickles in a file of `torch.save` may only rebuild tensors."""
    if not body.startswith(_ZIP):
        raise _code_error(path, f"has a pickle in {name} that is no archive", "save it with torch.export.save")
    with zipfile.ZipFile(io.BytesIO(body)) as inner:
        for member in inner.namelist():
            if member.endswith("/data.pkl"):
                for opcode, argument, _ in pickletools.genops(inner.read(member)):
                    if opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4") or (
                        opcode.name == "GLOBAL" and argument not in _REBUILDING
                    ):
                        raise _code_error(
                            path,
                            f"has a pickle in {name} that names {argument or opcode.name}",
                            "export it with example inputs that are plain tensors",
                        )


def _code_error(path: Path, what: str, remedy: str) -> Invalid:
    return Invalid(Reason.MODEL_INVALID, f"{path.name} {what}, which would run when it is loaded: {remedy}")
