"""Where a run's time went: summed over a test's phases, by folder, and by worker."""

from __future__ import annotations

import pytest
from tests.timing import Phase, by_folder, by_worker, lines, phases, slowest

FOUND = [
    Phase("tests/unit/a/test_a.py::test_one", 1.0, 10.0, "gw0"),
    Phase("tests/unit/a/test_a.py::test_one", 2.0, 12.0, "gw0"),
    Phase("tests/unit/a/test_a.py::test_two", 2.5, 20.0, "gw1"),
    Phase("tests/stores/test_b.py::test_three", 0.5, 11.0, "gw0"),
]


def test_a_test_takes_what_all_its_phases_take() -> None:
    assert slowest(FOUND, 2) == [("tests/unit/a/test_a.py::test_one", 3.0), ("tests/unit/a/test_a.py::test_two", 2.5)]


def test_a_folder_takes_what_its_tests_take() -> None:
    assert by_folder(FOUND) == [("tests/unit/a", 5.5, 2), ("tests/stores", 0.5, 1)]


def test_a_worker_is_done_before_the_last() -> None:
    assert by_worker(FOUND) == [("gw0", 3.5, 8.0), ("gw1", 2.5, 0.0)]
    assert any("gw0 4 s, done 8 s before the last" in line for line in lines(FOUND))


def test_reports_of_tests_are_taken_and_others_passed_over() -> None:
    report = pytest.TestReport(
        "tests/a/test_a.py::test_one[x]", ("", 0, ""), {}, "passed", None, "call", duration=1.0, stop=2.0
    )
    assert list(phases([report, object()])) == [Phase("tests/a/test_a.py::test_one[x]", 1.0, 2.0, "")]
