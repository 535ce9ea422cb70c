"""Engines, reasons and metrics are spelt where they are at home, so that who renames one or looks for its uses finds them all."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.api.conditions import Reason
from penstock.optimization.recipes import EngineName
from penstock.telemetry import names

ROOT = Path(__file__).parents[3]
COMPOUND = re.compile(r"[A-Z]\w*[a-z][A-Z]\w*")
"""A reason of one word, such as `Ready`, is a word of Kubernetes' and of many others."""
HOMES = {
    "engines": ("penstock/optimization/recipes.py", set(EngineName)),
    "reasons": ("penstock/api/conditions.py", {each for each in Reason if COMPOUND.fullmatch(each)}),
    "metrics": (
        "penstock/telemetry/names.py",
        {value for name, value in vars(names).items() if name.startswith("METRIC_")},
    ),
}
OTHERS = {("quantize_static_onnx.py", "ONNXRuntime")}
"""A quantizer of that name."""


def spelt(tree: ast.AST) -> Iterator[str]:
    """All strings of a module, but for docstrings and what an enumeration of its own calls its members."""
    passed: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant()):
                passed.add(id(node.value))
            case ast.ClassDef(bases=[ast.Name(id="StrEnum")]):
                passed |= {id(each.value) for each in node.body if isinstance(each, ast.Assign)}
            case ast.Constant(value=str(text)) if id(node) not in passed:
                yield text


@pytest.mark.parametrize("what", HOMES)
def test_it_is_spelt_at_home_alone(what: str) -> None:
    home, words = HOMES[what]
    quoted = re.compile("|".join(f'"{re.escape(each)}"' for each in words))
    elsewhere = [
        f"{path.relative_to(ROOT)}: {text}"
        for root in ("platform", "operators", "services")
        for path in sorted((ROOT / root).rglob("*.py"))
        if not path.as_posix().endswith(home) and quoted.search(module := path.read_text(encoding="utf-8"))
        for text in spelt(ast.parse(module))
        if text in words and (path.name, text) not in OTHERS
    ]
    assert elsewhere == []


def test_a_word_that_is_spelt_elsewhere_is_found() -> None:
    module = (
        '"""ModelInvalid."""\nclass A(StrEnum):\n    B = "NoDecision"\n\nraise Invalid("ModelInvalid", f"{x} NotThis")'
    )
    assert set(HOMES["reasons"][1]) & set(spelt(ast.parse(module))) == {"ModelInvalid"}
