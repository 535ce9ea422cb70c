"""The suite over several workers: what shares a costly part stays together, every other file is a unit, long ones first."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.distribution import ALONE, API_SERVER, LAST, RAY, rank, unit_of


@pytest.mark.parametrize(
    ("test", "unit"),
    [
        ("tests/unit/a/test_a.py::test_one", "tests/unit/a/test_a.py"),
        ("tests/unit/a/test_a.py::TestAll::test_one[x]", "tests/unit/a/test_a.py"),
        ("tests/unit/a/test_a.py::test_one[me@example.com::x]", "tests/unit/a/test_a.py"),
        ("tests/e2e/cluster/test_no_request_lost.py::test_while[a]", LAST),
        ("tests/e2e/cluster/test_no_request_lost_with_redis.py::test_while[b]", LAST),
    ],
    ids=[
        "a file is a unit",
        "a class is no unit of its own",
        "what a parameter says is no group",
        "what breaks what others share is one unit",
        "in whichever file",
    ],
)
def test_tests_are_handed_out_in_units(test: str, unit: str) -> None:
    assert unit_of(test) == unit


def test_all_files_whose_tests_come_last_are_that_unit() -> None:
    root = Path(__file__).parents[3]
    marked = [path for path in (root / "tests" / "e2e").rglob("test_*.py") if "pytest.mark.last" in path.read_text()]
    assert len(marked) == 2
    assert {unit_of(path.relative_to(root).as_posix()) for path in marked} == {LAST}


def test_the_longest_units_come_first() -> None:
    units = [
        RAY, "tests/integration/test_standalone_run.py", API_SERVER, "tests/integration/test_a.py",
        "tests/integration/building/test_b.py", "tests/stores/test_a.py", "tests/contract/test_a.py", "tests/unit/a/test_a.py", ALONE, LAST,
    ]  # fmt: skip
    found = sorted(set(units), key=rank)
    assert found[:3] == units[:3]
    assert found[-2:] == units[-2:]
