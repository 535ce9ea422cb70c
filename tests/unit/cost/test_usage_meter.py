"""What a replica says of its energy: by the kernel's counters where these can be read, and marked as estimated elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.cost.usage import EnergySource
from penstock.serving.control import ActorFacts
from penstock_serving.replica.telemetry.usage import UsageMeter


def count(powercap: Path, microjoules: int) -> None:
    """A package's counter, as the kernel shows it, with a part of it that must not count twice."""
    for zone in ("intel-rapl:0", "intel-rapl:0:0"):
        (powercap / zone).mkdir(exist_ok=True)
        (powercap / zone / "energy_uj").write_text(f"{microjoules}\n")
        (powercap / zone / "max_energy_range_uj").write_text("262143328850\n")


def work() -> None:
    """Some hundredths of a second of CPU time: the kernel tells no less."""
    began = sum(os.times()[:2])
    while sum(os.times()[:2]) - began < 0.05:
        pass


def test_measured_joules_are_the_replicas_share_of_what_the_counters_say(tmp_path: Path) -> None:
    count(tmp_path, 5_000_000)
    meter = UsageMeter(ActorFacts(), tmp_path)
    meter.look(0, 0.0)
    at_first = dict(meter.usage.joules)
    count(tmp_path, 45_000_000)
    work()
    meter.look(0, 0.0)
    measured = meter.usage.joules[EnergySource.RAPL]
    assert 0 < measured <= 40
    assert meter.usage.joules[EnergySource.ESTIMATED] == at_first[EnergySource.ESTIMATED], (
        "only of what was before the first look"
    )


def test_a_counter_that_begins_anew_is_no_estimate(tmp_path: Path) -> None:
    """It was taken for one that cannot be read."""
    count(tmp_path, 262_143_000_000)
    meter = UsageMeter(ActorFacts(), tmp_path)
    meter.look(0, 0.0)
    estimated = meter.usage.joules[EnergySource.ESTIMATED]
    count(tmp_path, 9_671_150)
    work()
    meter.look(0, 0.0)
    assert 0 < meter.usage.joules[EnergySource.RAPL] <= 10.0001
    assert meter.usage.joules[EnergySource.ESTIMATED] == estimated


@pytest.mark.parametrize("counters", ["none", "not to be read"])
def test_without_counters_all_is_marked_as_estimated(counters: str, tmp_path: Path) -> None:
    if counters == "not to be read":
        count(tmp_path, 1)
        (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    meter = UsageMeter(ActorFacts(), tmp_path)
    meter.look(0, 0.0)
    work()
    meter.look(0, 0.0)
    assert set(meter.usage.joules) == {EnergySource.ESTIMATED}
    assert meter.usage.joules[EnergySource.ESTIMATED] > 0
