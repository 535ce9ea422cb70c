"""JSON documents from somebody else."""

from __future__ import annotations

import json
from typing import Any, Final

_MOST_VALUES: Final = 500_000
"""Values in a document."""
_VALUE_BYTES: Final = 150
"""Of memory for each of them once it is read, however short it is written: `[],[],[]`."""


def read_json(content: bytes) -> Any:
    """A JSON document from somebody else.

    Raises:
        ValueError: it is none, nests too deeply, or has so many values that they would fill the memory.
    """
    weigh(content)
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


def weigh(content: bytes) -> int:
    """About how many bytes a JSON document takes in memory once it is read.

    Raises:
        ValueError: it has so many values that they would fill the memory.
    """
    values = content.count(b",") + content.count(b"[") + content.count(b"{")
    if values > _MOST_VALUES:
        raise ValueError(f"it has more than {_MOST_VALUES} values")
    return len(content) + _VALUE_BYTES * values
