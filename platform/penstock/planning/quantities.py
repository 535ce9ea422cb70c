"""Quantities as the planner uses them: as numbers, in one spelling, and as text for people."""

from __future__ import annotations

from typing import Final

from penstock.api.conditions import Reason
from penstock.api.quantity import parse_quantity
from penstock.errors import Invalid

_BYTE_UNITS: Final = {"Ti": 2**40, "Gi": 2**30, "Mi": 2**20, "Ki": 2**10}


def number(quantity: str) -> float:
    """A quantity such as `500m` or `1Gi` in its base unit (cores, bytes, pieces).

    Raises:
        Invalid: the text is not a quantity, or is negative.
    """
    value = float(parse_quantity(quantity))
    if value < 0:
        raise Invalid(Reason.INVALID_SPEC, f'"{quantity}" is negative: write a quantity of 0 or more, such as "500m"')
    return value


def canonical(quantity: str) -> str:
    """One text for all spellings of a quantity: `1000m`, `1.0` and `1` are `1`."""
    return f"{number(quantity):.9g}"


def readable_bytes(amount: float) -> str:
    """Bytes as a whole quantity: 1610612736 is `1536Mi`."""
    for unit, size in _BYTE_UNITS.items():
        if amount >= size and (amount % size == 0 or amount >= 100 * size):
            return f"{int(amount // size)}{unit}"
    return f"{int(amount)}"
