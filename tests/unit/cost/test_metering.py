from __future__ import annotations

import pytest

from penstock.cost.metering import Metering, ReplicaRoots, Sight, meter
from penstock.cost.processes import Process
from penstock.cost.usage import EnergySource, ReservedResources, UsageCounts

ROOTS = ReplicaRoots(replica=20, raylet=10)
RESERVED = ReservedResources(cpus=2, memory_bytes=1000, accelerators=0.5, accelerator="nvidia-l4")


def seen(at: float, *, raylet: float = 0, own: float = 0, other: float = 0, others: int = 1, **more: object) -> Sight:
    """A worker with a raylet, this replica (20, its server 21) and so many others."""
    processes = [
        Process(10, 1, 10, 0, raylet, 0, 5000),
        Process(20, 10, 10, 0, 0.0, 0, 100),
        Process(21, 20, 10, 0, own, 0, 300),
        *(Process(30 + number, 10, 10, 0, other, 0, 700) for number in range(others)),
    ]
    return Sight(at=at, processes=processes, replicas={20, *range(30, 30 + others)}, **more)  # type: ignore[arg-type]


def count(*sights: Sight, reserved: ReservedResources = RESERVED, roots: ReplicaRoots = ROOTS) -> UsageCounts:
    metering = Metering()
    for each in sights:
        metering = meter(metering, each, roots, reserved)
    return metering.usage


def test_use_and_reservation_grow_with_time() -> None:
    usage = count(seen(100, own=1), seen(110, own=4, answered=30, run_seconds=2.0))
    assert usage.seconds == 10
    assert usage.answered == 30
    assert usage.cpu_seconds == 4
    assert usage.memory_byte_seconds == 10 * 400
    assert usage.accelerator_seconds == 2
    assert (usage.reserved_cpu_seconds, usage.reserved_memory_byte_seconds, usage.reserved_accelerator_seconds) == (
        20,
        10_000,
        5,
    )


@pytest.mark.parametrize(
    ("sights", "overhead"),
    [
        pytest.param([seen(0, raylet=50)], 0, id="what was used before it came is not its"),
        pytest.param(
            [seen(0, others=0), seen(10, raylet=3, own=1, others=0)], 3, id="alone, all that the worker used besides"
        ),
        pytest.param([seen(0), seen(10, raylet=8, own=3, other=1)], 6, id="with others, by CPU time"),
        pytest.param([seen(0, others=3), seen(10, raylet=8, others=3)], 2, id="in equal parts where none used any"),
        pytest.param(
            [seen(0, group_seconds=5.0), seen(10, raylet=8, own=3, other=1, group_seconds=25.0)],
            12,
            id="in a container, of all that it used",
        ),
    ],
)
def test_what_a_worker_uses_besides_its_replicas_is_shared_among_them(sights: list[Sight], overhead: float) -> None:
    assert count(*sights).overhead_cpu_seconds == pytest.approx(overhead)


def test_the_sum_over_a_workers_replicas_is_all_that_it_used() -> None:
    looks = (seen(0), seen(10, raylet=8, own=3, other=1), seen(20, raylet=9, own=3, other=7))
    both = [count(*looks, roots=ReplicaRoots(pid, 10)) for pid in (20, 30)]
    assert sum(each.cpu_seconds + each.overhead_cpu_seconds for each in both) == pytest.approx(9 + 3 + 7)


def test_a_replica_without_a_worker_shares_nothing() -> None:
    usage = count(seen(0), seen(10, raylet=8, own=3), roots=ReplicaRoots(20))
    assert (usage.cpu_seconds, usage.overhead_cpu_seconds) == (3, 0)


@pytest.mark.parametrize(
    ("sights", "joules"),
    [
        pytest.param(
            [seen(0), seen(10, own=2)],
            {EnergySource.ESTIMATED: 2 * 3.5 + 4000e-9 * 0.392},
            id="estimated where nothing can be read",
        ),
        pytest.param(
            [
                seen(0, package_joules=100.0, busy_seconds=50.0),
                seen(10, own=2, package_joules=180.0, busy_seconds=58.0),
            ],
            {EnergySource.RAPL: 20.0, EnergySource.ESTIMATED: 0.0},
            id="a quarter of the processors' where it had a quarter of their time",
        ),
        pytest.param(
            [seen(0, accelerator_joules=10.0), seen(10, accelerator_joules=30.0)],
            {EnergySource.ESTIMATED: 4000e-9 * 0.392, EnergySource.NVML: 10.0},
            id="of a GPU what it holds of it",
        ),
        pytest.param(
            [seen(0, package_joules=100.0), seen(10, own=2, package_joules=3.0)],
            {EnergySource.ESTIMATED: 2 * 3.5 + 4000e-9 * 0.392},
            id="estimated while a counter begins anew",
        ),
    ],
)
def test_joules_say_where_they_come_from(sights: list[Sight], joules: dict[EnergySource, float]) -> None:
    assert count(*sights).joules == pytest.approx({source: value for source, value in joules.items() if value})


def test_without_an_accelerator_none_is_counted() -> None:
    usage = count(seen(0), seen(10, run_seconds=5.0), reserved=ReservedResources(cpus=1))
    assert (usage.accelerator_seconds, usage.reserved_accelerator_seconds) == (0, 0)
