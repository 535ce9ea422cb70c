"""What a check on a GPU makes of tests, loads and sessions: what did not run is never told as whole."""

from __future__ import annotations

from typing import Any

import pytest
from tests.benchmarks.gpu.figures import Figures, ends_of_tests, figures, page, problems, speedups

from penstock.optimization.measurements import Energy, EnergyMethod, LoadPoint, Role, Timing

JUNIT = """<testsuites><testsuite>
<testcase classname="a" name="one"/>
<testcase classname="a" name="two"><failure message="no"/></testcase>
<testcase classname="a" name="three"><error message="no"/></testcase>
<testcase classname="a" name="four"><skipped message="no TensorRT"/></testcase>
</testsuite></testsuites>"""
LOAD = LoadPoint(
    recipe_key="k", requests_per_second=100, p50_milliseconds=1, p99_milliseconds=2, cpu_seconds_per_request=0.01
)


def timing(batch_size: int, method: EnergyMethod, joules: float | None) -> Timing:
    return Timing(
        role=Role.CANDIDATE, recipe_key="k", batch_size=batch_size, rounds=1, runs=1, cpu_seconds_per_run=(1.0,),
        wall_milliseconds_p50=1, wall_milliseconds_p99=1, peak_memory_bytes=2**20, load_seconds=1,
        energy=Energy(method=method, cpu_seconds_per_sample=1, joules_per_sample=joules),
    )  # fmt: skip


def test_a_test_that_is_skipped_is_not_one_that_passed() -> None:
    ends = ends_of_tests(JUNIT)
    assert ends == {"passed": ["a::one"], "failed": ["a::two", "a::three"], "skipped": ["a::four: no TensorRT"]}


@pytest.mark.parametrize(
    ("document", "count"),
    [
        pytest.param({"tests": {"passed": ["a"], "failed": [], "skipped": []}}, 0, id="all passed"),
        pytest.param({"tests": None}, 1, id="no test ran"),
        pytest.param({"tests": {"passed": ["a"], "failed": ["b"], "skipped": ["c"]}}, 2, id="a failure and a skip"),
        pytest.param(
            {"tests": {"passed": ["a"], "failed": [], "skipped": []}, "errors": {"resnet50": "out of memory"}},
            1,
            id="a part that did not end",
        ),
    ],
)
def test_a_check_is_whole_only_where_all_ran(document: dict[str, Any], count: int) -> None:
    assert len(problems(document)) == count


def test_only_joules_that_were_measured_are_told_and_those_of_the_greatest_batch() -> None:
    measured = [timing(1, EnergyMethod.MEASURED_NVML, 5.0), timing(32, EnergyMethod.MEASURED_NVML, 0.5)]
    assert figures("m", "w", LOAD, measured, 10).joules_per_1000 == 500
    assert figures("m", "w", LOAD, [timing(1, EnergyMethod.ESTIMATED, None)], None).joules_per_1000 is None


def test_ratios_are_to_the_first_of_each_model_and_what_is_missing_is_said() -> None:
    rows = [Figures("m", "torch eager fp32", 10, 5, None, 1, None), Figures("m", "fast", 120, 5, 1, 1, 3)]
    assert speedups(rows) == {"m: fast": 12}
    text = page({"title": "T", "machine": "<gpu>", "when": "now", "rows": [{"joules": None}], "problems": ["x failed"]})
    assert "not measured" in text
    assert "&lt;gpu&gt;" in text
    assert "x failed" in text
