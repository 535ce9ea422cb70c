"""What documents, comments and docstrings name is there: modules, what is in them, files, and targets of links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from penstock.telemetry import names

ROOT = Path(__file__).parents[3]
PRODUCT = [ROOT / each for each in ("platform", "operators", "services")]
DOCUMENTS = [
    *(ROOT / f"{each}.md" for each in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
MODULES = [path for root in PRODUCT for path in sorted(root.rglob("*.py"))]

DOTTED = re.compile(r"(?<![\w./-])penstock(?:_[a-z]+)?(?:\.\w+)+(?![\w/-])")
PYTHON_FILE = re.compile(r"(?<![\w.*/-])((?:[\w-]+/)+[\w-]+\.py)(?![\w-])")
LINK = re.compile(r"\]\(([^)\s]+)\)")
NO_MODULES = {"penstock.dev", *(value for name, value in vars(names).items() if name.startswith(("ATTR_", "SPAN_")))}
"""The group of our APIs, labels and annotations, and names of attributes and spans, which look like modules."""


@cache
def names_in(path: Path) -> frozenset[str]:
    """Everything that a module or one of its classes binds, and what it imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.alias(name=name, asname=asname):
                found.add(asname or name)
    return frozenset(found)


@cache
def is_there(dotted: str) -> bool:
    """Whether a module has this name, or has what its last parts name."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        places = [root.joinpath(*parts[:length]) for root in PRODUCT]
        rest = parts[length:]
        for file in (each for place in places for each in (place.with_suffix(".py"), place / "__init__.py")):
            if file.is_file():
                return len(rest) <= 2 and names_in(file).issuperset(rest)
        if not rest and any(place.is_dir() for place in places):
            return True
    return False


def texts() -> Iterator[tuple[Path, str]]:
    """Documents whole, and of modules their text, in which imports are checked by others anyway."""
    for path in (*DOCUMENTS, *MODULES):
        yield path, path.read_text(encoding="utf-8")


def test_modules_that_are_named_are_there() -> None:
    gone = [
        f"{path.relative_to(ROOT)}: {dotted}"
        for path, text in texts()
        for dotted in sorted(set(DOTTED.findall(text)))
        if dotted not in NO_MODULES and not is_there(dotted)
    ]
    assert not gone, "\n".join(gone)


def test_files_that_are_named_are_there() -> None:
    # Not what is in the environment of the project, or was built: some hundred thousand files.
    roots = [*PRODUCT, *(ROOT / each for each in ("charts", "images", "manifests", "scripts", "tests"))]
    there = {str(path.relative_to(ROOT)) for root in roots for path in root.rglob("*.py")}
    gone = [
        f"{path.relative_to(ROOT)}: {file}"
        for path, text in texts()
        for file in sorted(set(PYTHON_FILE.findall(text)))
        if not any(each == file or each.endswith(f"/{file}") for each in there)
    ]
    assert not gone, "\n".join(gone)


def test_links_of_documents_lead_somewhere() -> None:
    gone = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in DOCUMENTS
        for target in LINK.findall(path.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("#") and not (path.parent / target.partition("#")[0]).exists()
    ]
    assert not gone, "\n".join(gone)


def test_folders_of_the_architecture_are_there_and_every_concept_is_in_it() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Folders")[2]
    listing = text.partition("```\n")[2].partition("```")[0]
    listed: set[Path] = set()
    outer: list[str] = []
    for indent, folder in re.findall(r"^( *)([\w/]+)/(?: |$)", listing, re.MULTILINE):
        outer = [*outer[: len(indent) // 2], folder]
        listed.add(ROOT.joinpath(*outer))
    assert [str(each) for each in sorted(listed) if not each.is_dir()] == []
    concepts = {each for root in PRODUCT for each in root.glob("*/*/") if (each / "__init__.py").is_file()}
    assert [str(each) for each in sorted(concepts - listed)] == []
