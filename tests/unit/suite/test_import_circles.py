"""No two modules of the product import each other, by whatever detour, at their top, within a function or for types alone."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("platform", "operators", "services")


def modules(root: Path) -> dict[str, Path]:
    """Files by the name that imports give them."""
    files = ((folder, path) for folder in FOLDERS for path in (root / folder).rglob("*.py"))
    return {
        ".".join(path.relative_to(root / folder).with_suffix("").parts).removesuffix(".__init__"): path
        for folder, path in files
    }


def needed(path: Path, known: Mapping[str, Path]) -> set[str]:
    """Modules of the product that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = (f"{node.module}.{each.name}" for each in node.names)
            found |= {name if name in known else node.module for name in names}
    return found & known.keys()


def circle(root: Path) -> list[str]:
    """The modules of a circle, each imported by the next; empty where there is none."""
    known = modules(root)
    try:
        TopologicalSorter({name: needed(path, known) - {name} for name, path in known.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_one_that_imports_it() -> None:
    assert circle(ROOT) == []


@pytest.mark.parametrize(
    "text",
    ["from house.two import b", "def a():\n    import house.two", "if TYPE_CHECKING:\n    from house.two import b"],
    ids=["at the top", "within a function", "for types alone"],
)
def test_a_circle_is_found(text: str, tmp_path: Path) -> None:
    house = tmp_path / "services" / "house"
    house.mkdir(parents=True)
    (house / "__init__.py").write_text("")
    (house / "one.py").write_text(text)
    (house / "two.py").write_text("from house import one")
    assert set(circle(tmp_path)) == {"house.one", "house.two"}
