"""The report's templates, in which every value is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from penstock.optimization.report import Outcome
from penstock_optimizer.report.axes import number

_MEGABYTE: Final = 1e6
_MEBIBYTE: Final = 1 << 20


def _words(outcome: Outcome) -> str:
    """`AccuracyLost` as people write it."""
    text = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in outcome.value).strip()
    return text[:1].upper() + text[1:]


TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {
    "number": number,
    "words": _words,
    "megabytes": lambda size: f"{number(size / _MEGABYTE)} MB",
    "mebibytes": lambda size: f"{number(size / _MEBIBYTE)} MiB",
}
