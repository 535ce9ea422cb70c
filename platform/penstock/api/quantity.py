"""Kubernetes resource quantities, after `k8s.io/apimachinery/pkg/api/resource`; as numbers, in one spelling, as text."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from penstock.api.conditions import Reason
from penstock.errors import Invalid

_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?",
    re.ASCII,
)
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_BYTE_UNITS: Final = {"Ti": 2**40, "Gi": 2**30, "Mi": 2**20, "Ki": 2**10}


def parse_quantity(text: str) -> Decimal:
    """The value of a quantity in its base unit: cores, or bytes.

    Suffixes are those of Kubernetes: `n u m k M G T P E` (powers of 1000), `Ki Mi Gi Ti Pi Ei` (powers of 1024), or an
    exponent such as `e3`.

    Raises:
        Invalid: the text is not a quantity.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise Invalid(
            Reason.INVALID_SPEC,
            f'"{text}" is not a quantity: write a number with an optional suffix, such as "500m", "2" or "1Gi"',
        )
    number, suffix = Decimal(match["number"]), match["suffix"] or ""
    if suffix in _BINARY:
        return number * Decimal(1 << _BINARY[suffix])
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    return number.scaleb(exponent)


def is_quantity(text: str) -> bool:
    """Whether the text is a quantity, as CEL's `isQuantity` says."""
    return _QUANTITY.fullmatch(text) is not None


def number(quantity: str) -> float:
    """A quantity such as `500m` or `1Gi` in its base unit (cores, bytes, pieces).

    Raises:
        Invalid: the text is not a quantity, or is negative.
    """
    value = float(parse_quantity(quantity))
    if value < 0:
        raise Invalid(Reason.INVALID_SPEC, f'"{quantity}" is negative: write a quantity of 0 or more, such as "500m"')
    return value


def canonical_quantity(quantity: str) -> str:
    """One text for all spellings of a quantity: `1000m`, `1.0` and `1` are `1`."""
    return f"{number(quantity):.9g}"


def readable_bytes(amount: float) -> str:
    """Bytes as a whole quantity: 1610612736 is `1536Mi`."""
    for unit, size in _BYTE_UNITS.items():
        if amount >= size and (amount % size == 0 or amount >= 100 * size):
            return f"{int(amount // size)}{unit}"
    return f"{int(amount)}"
