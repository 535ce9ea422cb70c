"""The table of engines: each row is whole, and what is told elsewhere agrees with it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from penstock.engines import DEFAULT_ENGINES, ENGINES, FORMATS, Servability
from penstock.optimization.recipes import EngineName, EngineSettings, Recipe
from penstock.serving.manifest import ModelFormat
from penstock_optimizer.building.delivery import _WRITERS
from penstock_optimizer.sources import _READERS

DOCS = (Path(__file__).parents[3] / "docs" / "optimization.md").read_text()


def test_every_engine_and_every_format_has_its_row() -> None:
    assert set(ENGINES) == set(EngineName)
    assert set(FORMATS) == set(ModelFormat)


@pytest.mark.parametrize("name", EngineName)
def test_an_engine_has_its_file_and_a_way_to_its_format(name: EngineName) -> None:
    facts = ENGINES[name]
    assert find_spec(f"penstock_runtime.engines.{facts.module}") is not None
    assert facts.given in _WRITERS
    assert FORMATS[facts.given].suffix


@pytest.mark.parametrize("name", EngineName)
def test_the_documentation_has_a_row_for_an_engine_with_what_it_loads(name: EngineName) -> None:
    (row,) = (line for line in DOCS.splitlines() if line.startswith(f"| `{name}` |"))
    for each in ENGINES[name].formats:
        assert f"`{each}`" in row


def test_a_format_has_a_default_engine_that_loads_it() -> None:
    assert {each: each in ENGINES[name].formats for each, name in DEFAULT_ENGINES.items()} == dict.fromkeys(
        ModelFormat, True
    )


def test_what_a_search_can_start_from_can_be_read() -> None:
    assert {each for each, facts in FORMATS.items() if facts.optimizable} == set(_READERS)


def test_what_is_code_is_served_by_nobody_as_it_is() -> None:
    assert not [each for each, facts in FORMATS.items() if facts.code and facts.served is Servability.AS_IS]


def test_a_recipe_names_its_engine_as_the_table_does() -> None:
    for name in ENGINES:
        assert str(name) in Recipe(engine=EngineSettings(name=name)).label
