from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from penstock.cost.processes import Process, descend, group_by_root, seconds_since, worker_root
from penstock_runtime.processes import (
    busy_seconds,
    container_seconds,
    parse_cpu_stat,
    parse_stat,
    read_processes,
)


def process(
    pid: int, parent: int = 1, own: float = 0.0, waited: float = 0.0, *, started: int = 0, session: int = 0
) -> Process:
    return Process(pid, parent, session, started, own, waited)


@pytest.mark.parametrize(
    ("before", "now", "seconds"),
    [
        pytest.param([], [process(10, own=3)], 3, id="at the first look all counts"),
        pytest.param([process(10, own=3)], [process(10, own=5)], 2, id="then what was used in between"),
        pytest.param([], [process(10, own=1), process(11, 10, own=2)], 3, id="a child counts"),
        pytest.param(
            [process(10, own=1), process(11, 10, own=2)],
            [process(10, own=1, waited=5)],
            3,
            id="of a child that ended, what was not counted while it lived",
        ),
        pytest.param([process(10)], [process(10, waited=4)], 4, id="a child that came and went in between"),
        pytest.param(
            [process(10), process(11, 10, own=2), process(12, 11, own=3)],
            [process(10, waited=6)],
            1,
            id="a child and its child that ended, one after the other, tell what is new once",
        ),
        pytest.param(
            [process(10), process(11, 10), process(12, 11, own=3)],
            [process(10), process(11, 10, waited=4)],
            1,
            id="a grandchild is told by its parent, which lives",
        ),
        pytest.param(
            [process(10), process(11, 10, own=2)],
            [process(10)],
            0,
            id="one that nobody waited for takes nothing back",
        ),
        pytest.param(
            [process(10), process(11, 10, own=7, started=1)],
            [process(10, waited=7), process(11, 10, own=1, started=2)],
            1,
            id="a number that is used again is another process",
        ),
    ],
)
def test_a_tree_uses_what_its_processes_used_and_nothing_twice(
    before: Sequence[Process], now: Sequence[Process], seconds: float
) -> None:
    used = seconds_since({each.identity: each for each in before}, now)
    assert sum(used.values()) == pytest.approx(seconds)


def test_a_tree_is_the_root_and_all_that_comes_from_it() -> None:
    all_processes = [process(1, 0), process(12, 11), process(11, 10), process(10), process(20), process(21, 20)]
    assert {each.pid for each in descend(all_processes, {10})} == {10, 11, 12}
    assert {each.pid for each in descend(all_processes, {10, 11})} == {10, 11, 12}


def test_processes_belong_to_the_topmost_root_that_they_come_from() -> None:
    tree = [process(5), process(10, 5), process(11, 10), process(12, 11), process(20, 5), process(30, 5)]
    groups = group_by_root(tree, {10, 11, 20})
    assert {root: {each.pid for each in group} for root, group in groups.items()} == {
        10: {10, 11, 12},
        20: {20},
        0: {5, 30},
    }


@pytest.mark.parametrize(
    ("processes", "root"),
    [
        pytest.param(
            [process(7, 3, session=7), process(8, 7, session=7), process(9, 7, session=7)],
            7,
            id="what started it and leads its session: dashboard and control store are beside it",
        ),
        pytest.param([process(8, 1, session=8)], 8, id="started by nobody who still lives"),
        pytest.param(
            [process(7, 3, session=2), process(8, 7, session=2)], 8, id="started by a program of somebody's shell"
        ),
        pytest.param([], 8, id="not to be seen"),
    ],
)
def test_a_workers_processes_come_from(processes: Sequence[Process], root: int) -> None:
    assert worker_root(processes, 8) == root


def test_a_process_is_read_though_its_name_holds_spaces_and_brackets() -> None:
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    text = "42 (ray::a) b) S 7 42 9 0 -1 0 1 2 3 4 100 50 30 20 20 0 5 0 777 1000 12 18446744073709551615"
    assert parse_stat(42, text) == Process(42, 7, 9, 777, 150 / ticks, 50 / ticks, 12 * page)


def test_this_process_is_among_those_that_are_read() -> None:
    own = next(each for each in read_processes() if each.pid == os.getpid())
    assert own.parent == os.getppid()
    assert own.own_seconds > 0
    assert own.resident_bytes > 1 << 20
    assert busy_seconds() >= own.own_seconds


@pytest.mark.parametrize(
    ("membership", "files", "seconds"),
    [
        pytest.param("0::/\n", ("cgroup.type", "cpu.stat"), 1.5, id="in a container"),
        pytest.param("0::/user.slice/session-2.scope\n", ("cgroup.type", "cpu.stat"), None, id="in somebody's session"),
        pytest.param("0::/\n", ("cpu.stat",), None, id="in the machine's own group, where all else runs, too"),
        pytest.param("4:cpu:/\n", (), None, id="under version 1"),
    ],
)
def test_a_containers_cpu_time_is_that_of_its_own_group(
    tmp_path: Path, membership: str, files: tuple[str, ...], seconds: float | None
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(membership)
    for name in files:
        (tmp_path / name).write_text("usage_usec 1500000\nuser_usec 1\n" if name == "cpu.stat" else "domain\n")
    assert container_seconds(tmp_path, tmp_path) == seconds


def test_a_group_that_does_not_tell_its_cpu_time_tells_none() -> None:
    assert parse_cpu_stat("nr_periods 0\n") is None


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of version 2, of the machine's own hierarchy."""
    roots = [
        each
        for each in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
        if (each / "cgroup.controllers").exists()
    ]
    if not roots or not os.access(roots[0], os.W_OK):
        pytest.skip("there is no hierarchy of version 2 here in which a group may be made")
    made = roots[0] / f"penstock-test-{os.getpid()}"
    made.mkdir()
    yield made
    made.rmdir()


def test_a_real_group_of_version_2_tells_what_its_processes_used(group: Path) -> None:
    """As in a container: the group is the root of its own namespace, with a child that has ended, too."""
    program = (
        "import json, os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from penstock_runtime.processes import container_seconds\n"
        "before = container_seconds(cgroup=Path(sys.argv[1]))\n"
        "subprocess.run([sys.executable, '-c', 'sum(range(3_000_000))'], check=True)\n"
        "after, times = container_seconds(cgroup=Path(sys.argv[1])), os.times()\n"
        "print(json.dumps([before, after, sum(times[:4])]))\n"
    )
    entered = f'echo $$ > {group}/cgroup.procs && exec unshare --cgroup {sys.executable} -c "$1" {group}'
    done = subprocess.run(["sh", "-c", entered, "sh", program], capture_output=True, text=True, timeout=60, check=True)
    before, after, told = json.loads(done.stdout)
    assert 0 < before < after
    assert after == pytest.approx(told, rel=0.3, abs=0.05), (
        "the kernel tells processes' times in hundredths of a second"
    )
