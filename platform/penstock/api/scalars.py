"""YAML's plain scalars as `kubectl` reads them, which is YAML 1.1 with exceptions (`resolve.go` of go.yaml.in/yaml/v2).

What decides is not the specification but this: `y` is true, `1e3` and `08` are numbers, and `12:30` is text.
"""

from __future__ import annotations

import math
import re
from typing import Final

Scalar = str | int | float | bool | None

_TAG: Final = "tag:yaml.org,2002:"
_WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_FIRST: Final = frozenset("+-.0123456789")
_INTEGER: Final = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[oO]?([0-7]+)|0[bB]([01]+)|(0|[1-9][0-9]*))")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASES: Final = (16, 8, 2, 10)
_INT64: Final = range(-(2**63), 2**63)
_UINT64: Final = range(2**64)
_EXACT: Final = 1e21
"""Go writes whole floats below this one without a point, so that they are read again as integers."""


def scalar(text: str) -> Scalar:
    """The value of a plain scalar. A whole float is an integer: so Go writes it, and so it is read again."""
    value = _read(text)
    whole = isinstance(value, float) and value.is_integer() and abs(value) < _EXACT
    return int(value) if whole and isinstance(value, float) else value


def _read(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _FIRST:
        return text
    plain = text if text[0] == "." else text.replace("_", "")
    whole = _integer(plain)
    if whole is not None:
        return whole
    if _FLOAT.fullmatch(plain) is None:
        return text
    value = float(plain)
    return value if math.isfinite(value) else text


def tag(text: str) -> str:
    """The tag of a plain scalar."""
    match _read(text):
        case None:
            kind = "null"
        case bool():
            kind = "bool"
        case int():
            kind = "int"
        case float():
            kind = "float"
        case _:
            kind = "merge" if text == "<<" else "str"
    return _TAG + kind


def _integer(plain: str) -> int | None:
    found = _INTEGER.fullmatch(plain)
    if found is None:
        return None
    sign, *digits = found.groups()
    (value,) = [int(each, base) for each, base in zip(digits, _BASES, strict=True) if each is not None]
    value = -value if sign == "-" else value
    return value if value in _INT64 or (not sign and value in _UINT64) else None
