"""The table of the protocol's requirements: each has its status, who is right about it, and a test that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TABLE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in TABLE.splitlines()
    if re.match(r"\| \d", line)
]
CONFORMANCE = ROOT / "tests" / "integration" / "test_conformance.py"


def find_tests(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def complaints(row: tuple[str, ...], known: set[str]) -> list[str]:
    """What is wrong with a row."""
    if len(row) != 5:
        return [f"it has {len(row)} cells"]
    _, _, status, reason, tests = row
    named = re.findall(r"`(test_\w+)`", tests)
    found = [f"there is no test {name}" for name in named if name not in known]
    if status not in ("yes", "no"):
        found.append(f"its status is {status!r}")
    if not named:
        found.append("it names no test")
    if (status == "no") != bool(reason):
        found.append("what is not done has a reason, and nothing else has")
    return found


def test_every_requirement_has_a_status_and_a_test_that_is_there() -> None:
    known = set().union(*(find_tests(path) for path in (ROOT / "tests").rglob("test_*.py")))
    assert {row[0]: found for row in ROWS if (found := complaints(row, known))} == {}


def test_requirements_are_numbered_without_gaps() -> None:
    sections = [int(each) for each in re.findall(r"^## (\d+) ", TABLE, re.MULTILINE)]
    assert sections == list(range(1, len(sections) + 1))
    for section in sections:
        inside = [int(row[0].split(".")[1]) for row in ROWS if row[0].startswith(f"{section}.")]
        assert inside == list(range(1, len(inside) + 1)), section
        assert inside, section


def test_every_test_of_the_conformance_suite_stands_for_a_requirement() -> None:
    named = set(re.findall(r"`(test_\w+)`", TABLE))
    assert find_tests(CONFORMANCE) - named == set()


@pytest.mark.parametrize(
    "row",
    [
        ("1.1", "x", "yes", "", "`test_nowhere`"),
        ("1.1", "x", "yes", "", ""),
        ("1.1", "x", "perhaps", "", "`test_here`"),
        ("1.1", "x", "no", "", "`test_here`"),
        ("1.1", "x", "yes", "because", "`test_here`"),
        ("1.1", "x", "yes", "`test_here`"),
    ],
    ids=[
        "a test that is not there",
        "no test",
        "another status",
        "no reason",
        "a reason for what is done",
        "a cell missing",
    ],
)
def test_a_row_that_is_wrong_is_found(row: tuple[str, ...]) -> None:
    assert len(complaints(row, {"test_here"})) == 1
    assert complaints(("1.1", "x", "yes", "", "`test_here`"), {"test_here"}) == []
