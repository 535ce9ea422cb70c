"""What acts has a verb for its name, and what is derived a noun: no function is named by a participle or an adverb alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("platform", "operators", "services", "images")
BARE = frozenset(
    re.findall(
        r"\w+",
        # Participles that do not end as the regular ones do.
        "begun bought broken brought built caught chosen come done drawn fed found given gone grown held kept known led left "
        "lent lost made meant met paid said seen sent shown sold spent taken taught thought told understood won written "
        # Adverbs and the like.
        "afresh again ahead all alone already also always anew apart aside away back else enough ever here indeed instead "
        "just maybe meanwhile never nobody nothing once only perhaps so some soon still then there thus together too twice "
        "very well yet "
        # Conjunctions and pronouns.
        "and because both but either how if neither nor or since than that though unless until what when where whether "
        "which while who whom whose",
    )
)
PREPOSITIONS = frozenset(
    re.findall(
        r"\w+",
        "about above across after against along among around at before behind below beneath beside besides between beyond by "
        "down during for in inside into near of off onto out outside over past per since through till toward towards under "
        "until up upon via within",
    )
)
"""No name begins with one. Conversions (`as`, `from`, `to`, `with`, `without`) and callbacks (`on`) do with theirs."""
VERBS = frozenset(["embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed", "succeed"])
"""They end as participles do."""


def is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is read as a field is, which an adjective may name."""
    names = (
        each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in function.decorator_list
    )
    return any(name in ("setter", "deleter") or name.endswith("property") for name in names)


def is_misnamed(name: str) -> bool:
    """Whether a name is a participle, an adverb or a conjunction alone, or begins with a preposition."""
    first, *rest = name.strip("_").split("_")
    if first in PREPOSITIONS:
        return True
    return not rest and (first in BARE or (first.endswith("ed") and first not in VERBS))


def misnamed(source: str) -> Iterator[str]:
    """Names of functions and methods, inner ones too, that say neither what they do nor what they give."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and is_misnamed(node.name)
            and not is_property(node)
        ):
            yield node.name


def test_no_function_is_named_by_a_word_that_neither_acts_nor_is() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in misnamed(path.read_text(encoding="utf-8"))
    }
    assert found == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        pytest.param("def told(): ...", ["told"], id="a participle"),
        pytest.param("def _joined(): ...", ["_joined"], id="a private one"),
        pytest.param("class A:\n    async def again(self): ...", ["again"], id="a method named by an adverb"),
        pytest.param("def a():\n    def _of_one(): ...", ["_of_one"], id="an inner one that begins with a preposition"),
        pytest.param(
            "class A:\n    @property\n    def closed(self): ...", [], id="a property is an adjective of its object"
        ),
        pytest.param("class A:\n    @x.setter\n    def held(self, value): ...", [], id="so is what sets it"),
        pytest.param("def with_key(): ...\ndef to_json(): ...\ndef on_body(): ...", [], id="conversions and callbacks"),
        pytest.param("def feed(): ...\ndef allowed_loss(): ...", [], id="verbs and nouns"),
    ],
)
def test_what_is_misnamed(source: str, found: list[str]) -> None:
    assert list(misnamed(source)) == found
