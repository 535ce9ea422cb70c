"""Links between pages, and to files beside them, lead to places of the site."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs/site_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("source", "link", "expected"),
    [
        pytest.param("README.md", "docs/pools.md#a", "pools.md#a", id="from the README to a page"),
        pytest.param("README.md", "docs/planes.svg", "planes.svg", id="to a picture"),
        pytest.param("docs/pools.md", "gpus.md", "gpus.md", id="from a page to its neighbour"),
        pytest.param("docs/adr/0001-replica-server-in-a-process-of-its-own.md", "../../README.md", "../index.md", id="back to the README"),
        pytest.param("README.md", "docs/adr/", "adr/index.md", id="to the list of decisions"),
        pytest.param("docs/install.md", "../charts/penstock/values.yaml", "source/charts/penstock/values.yaml.md", id="to a file of the chart"),
        pytest.param("README.md", "https://example.com/docs/pools.md", "https://example.com/docs/pools.md", id="elsewhere"),
        pytest.param("README.md", "docs/no-such.md", "docs/no-such.md", id="to nothing: left, so that it is found broken"),
    ],
)  # fmt: skip
def test_a_link_leads_to_a_place_of_the_site(pages: ModuleType, source: str, link: str, expected: str) -> None:
    text, _ = pages.rewrite(source, f"see [it]({link})")
    assert text == f"see [it]({expected})"


def test_a_file_outside_the_documents_that_is_linked_becomes_a_page(pages: ModuleType) -> None:
    assert pages.rewrite("docs/install.md", "[v](../charts/penstock/values.yaml)")[1] == {"charts/penstock/values.yaml"}
