"""The suite over several workers: what shares a costly part stays together, every other file is a unit, long ones first."""

from __future__ import annotations

import pytest
from tests.distribution import API_SERVER, LAST, RAY, rank, unit_of


@pytest.mark.parametrize(
    ("test", "unit"),
    [
        ("tests/unit/a/test_a.py::test_one", "tests/unit/a/test_a.py"),
        ("tests/unit/a/test_a.py::TestAll::test_one[x]", "tests/unit/a/test_a.py"),
        ("tests/unit/a/test_a.py::test_one[me@example.com::x]", "tests/unit/a/test_a.py"),
        ("tests/e2e/test_a.py::test_one@ray", RAY),
        ("tests/contract/test_a.py::test_one[me@example.com]@apiserver", API_SERVER),
        ("tests/e2e/test_a.py::test_one@last", LAST),
    ],
    ids=[
        "a file is a unit",
        "a class is no unit of its own",
        "what a parameter says is no group",
        "what needs the session's Ray is one unit",
        "what needs the API server is one unit",
        "what breaks what others share is one unit",
    ],
)
def test_tests_are_handed_out_in_units(test: str, unit: str) -> None:
    assert unit_of(test) == unit


def test_the_longest_units_come_first() -> None:
    units = [
        RAY, "tests/integration/test_standalone_run.py", API_SERVER, "tests/integration/test_a.py",
        "tests/integration/building/test_b.py", "tests/stores/test_a.py", "tests/contract/test_a.py", "tests/unit/a/test_a.py", LAST,
    ]  # fmt: skip
    found = sorted(set(units), key=rank)
    assert found[:3] == units[:3]
    assert found[-1] == units[-1]
