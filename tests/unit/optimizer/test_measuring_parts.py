"""Parts of the measurement that need no process: which cores, which meter."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.optimization.measurements import EnergyMethod
from penstock_optimizer.measure.placement import busy_ticks, least_busy_cores
from penstock_runtime.energy import Estimated, Rapl, meter, visible_devices

STAT = """cpu  300 0 60 1000 5 0 3 0 0 0
cpu0 200 0 40 400 3 0 2 0 0 0
cpu1 100 1 20 600 2 0 1 4 0 0
intr 12345
"""


def test_busy_ticks_are_all_but_idle_and_waiting_for_disks() -> None:
    assert busy_ticks(STAT) == {0: 242, 1: 126}


@pytest.mark.parametrize(
    ("ticks", "count", "cores"),
    [
        pytest.param({0: 5, 1: 2, 2: 9}, 1, (1,), id="the least busy"),
        pytest.param({0: 5, 1: 2, 2: 9}, 2, (0, 1), id="the two least busy, by number"),
        pytest.param({0: 3, 1: 3}, 1, (1,), id="of equals the higher: systems put their work on low ones"),
    ],
)
def test_which_cores(ticks: dict[int, int], count: int, cores: tuple[int, ...]) -> None:
    assert least_busy_cores(ticks, count) == cores


def zone(folder: Path, name: str, joules: float, most: float) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{int(most * 1e6)}\n")


def test_rapl_adds_packages_but_not_their_parts(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 10, 100)
    zone(tmp_path, "intel-rapl:1", 5, 100)
    zone(tmp_path, "intel-rapl:0:0", 7, 100)
    found = meter(gpu=False, powercap=tmp_path)
    assert isinstance(found, Rapl)
    before = found.read()
    zone(tmp_path, "intel-rapl:0", 12, 100)
    assert found.joules_between(before, found.read()) == pytest.approx(2)
    assert found.method is EnergyMethod.MEASURED_RAPL


def test_a_counter_that_begins_anew_is_seen_to(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 99, 100)
    found = meter(gpu=False, powercap=tmp_path)
    before = found.read()
    zone(tmp_path, "intel-rapl:0", 1, 100)
    assert found.joules_between(before, found.read()) == pytest.approx(2)


def test_of_two_counters_one_that_begins_anew_is_seen_to(tmp_path: Path) -> None:
    """What both count before they begin anew was added, though one alone had."""
    zone(tmp_path, "intel-rapl:0", 99, 100)
    zone(tmp_path, "intel-rapl:1", 10, 400)
    found = meter(gpu=False, powercap=tmp_path)
    before = found.read()
    zone(tmp_path, "intel-rapl:0", 1, 100)
    zone(tmp_path, "intel-rapl:1", 13, 400)
    assert found.joules_between(before, found.read()) == pytest.approx(5)


def test_without_counters_nothing_is_claimed(tmp_path: Path) -> None:
    found = meter(gpu=False, powercap=tmp_path)
    assert found == Estimated()
    assert found.joules_between(found.read(), found.read()) is None
    assert found.method is EnergyMethod.ESTIMATED


@pytest.mark.parametrize(
    ("told", "devices"),
    [
        pytest.param(None, (0,), id="all are: the first"),
        pytest.param("2, 3", (2, 3), id="by number"),
        pytest.param("", (), id="none"),
        pytest.param("GPU-5f2a", (), id="by a name that NVML's numbers do not tell"),
    ],
)
def test_gpus_are_those_that_the_process_may_use(told: str | None, devices: tuple[int, ...]) -> None:
    assert visible_devices(told) == devices
