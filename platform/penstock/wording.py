"""How what messages name is put together, wherever they are written."""

from __future__ import annotations

from collections.abc import Sequence


def join_some(names: Sequence[object], most: int) -> str:
    """The first `most` of them: `a, b and 3 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def join_with_or(names: Sequence[str]) -> str:
    """All of them: `onnx, openvino or litert`."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def end_sentence(text: str) -> str:
    """The text with a full stop, where it does not end as a sentence does."""
    return text if text.endswith((".", "!", "?")) else f"{text}."
