"""Kubernetes quantities as numbers."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from penstock.api.conditions import Reason
from penstock.errors import Invalid

_FORM: Final = re.compile(r"^([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([eE][+-]?[0-9]+)|([a-zA-Z]*))$")
_UNITS: Final = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(1000),
    "M": Decimal(10) ** 6, "G": Decimal(10) ** 9, "T": Decimal(10) ** 12, "P": Decimal(10) ** 15,
    "Ki": Decimal(2) ** 10, "Mi": Decimal(2) ** 20, "Gi": Decimal(2) ** 30, "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
}  # fmt: skip


def number(quantity: str) -> float:
    """A quantity such as `500m` or `1Gi` in its base unit (cores, bytes, pieces).

    Raises:
        Invalid: the text is not a quantity.
    """
    match = _FORM.match(quantity)
    if match is None or (match[3] or "") not in _UNITS:
        raise Invalid(Reason.INVALID_SPEC, f"{quantity!r} is not a quantity; write for example 500m, 2 or 1Gi")
    return float(Decimal(match[1] + (match[2] or "")) * _UNITS[match[3] or ""])


def canonical(quantity: str) -> str:
    """One text for all spellings of a quantity: `1000m`, `1.0` and `1` are `1`."""
    return f"{number(quantity):.9g}"


def readable_bytes(amount: float) -> str:
    """Bytes as a whole quantity: 1610612736 is `1536Mi`."""
    for unit in ("Ti", "Gi", "Mi", "Ki"):
        size = float(_UNITS[unit])
        if amount >= size and (amount % size == 0 or amount >= 100 * size):
            return f"{int(amount // size)}{unit}"
    return f"{int(amount)}"
