"""The test cluster itself: whatever is killed, and when, this machine is afterwards as it was before."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cluster import boot, cgroups
from tests.cluster.binary import build
from tests.cluster.configuration import PAUSE_IMAGE
from tests.cluster.layout import Layout
from tests.cluster.tools import say

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

_OWNER = """
import os, sys, time
from tests.cluster import boot
from tests.cluster.layout import Layout
boot.up(Layout(sys.argv[1], 1), lambda line: None, owner=os.getpid(), with_kuberay=False)
time.sleep(600)
"""
_POD: dict[str, object] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "sleeper", "namespace": "default"},
    "spec": {
        "automountServiceAccountToken": False,
        "containers": [{"name": "pause", "image": PAUSE_IMAGE, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
    },
}


@pytest.fixture
def layout(request: pytest.FixtureRequest) -> Iterator[Layout]:
    """A cluster's name of our own.

    The cluster that all tests share is up before: what its start does to this machine is not ours.
    """
    if os.environ.get("PENSTOCK_CLUSTER") != "own":
        pytest.skip("about this project's own cluster")
    request.getfixturevalue("cluster")
    found = Layout(f"leftovers-{os.getpid()}", 1)
    boot.parts(say)
    yield found
    boot.down(found)
    shutil.rmtree(found.cache, ignore_errors=True)


@contextmanager
def _owner(layout: Layout) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", _OWNER, layout.name]) as process:
        try:
            yield process
        finally:
            process.kill()


def _host() -> tuple[str, str, list[bytes]]:
    """What a cluster could leave on this machine: mounts, links, and values that no namespace holds."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True, timeout=30).stdout
    tunables = [Path("/proc/sys", name).read_bytes() for name in ("vm/overcommit_memory", "kernel/panic")]
    return Path("/proc/self/mounts").read_text(), links, tunables


def _left(layout: Layout) -> list[str]:
    """Processes, groups and folders of a cluster."""
    found = [str(root / layout.cgroup) for root in cgroups.hierarchies() if (root / layout.cgroup).exists()]
    if layout.state.exists():
        found.append(str(layout.state))
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = each.read_bytes()
        except OSError:
            continue  # it has just ended
        if layout.name.encode() in line:
            found.append(line.replace(b"\0", b" ").decode())
    return found


def _until(condition: Callable[[], object], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def _running_pod(layout: Layout) -> bool:
    """Whether a pod that mounts this machine's root runs; made where it is not there yet."""
    if not layout.installed.exists():
        return False
    binary = build(say)
    try:
        boot.kubectl(layout, binary, "apply", "-f", "-", manifest=[_POD])
    except AssertionError as error:
        assert "serviceaccount" in str(error)  # noqa: PT017  # a namespace's first second
        return False
    phase = boot.kubectl(layout, binary, "get", "pod", "sleeper", "-o", "jsonpath={.status.phase}")
    return phase == "Running"


MOMENTS: dict[str, Callable[[Layout], object]] = {
    "before it has a process": lambda layout: layout.lock.exists(),
    "while its first process starts": lambda layout: layout.init_pid.exists(),
    "while its control plane starts": lambda layout: (layout.logs / "kube-apiserver.log").exists(),
    "with a pod running that mounts this machine's files": _running_pod,
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_owner_killed(layout: Layout, moment: Callable[[Layout], object]) -> None:
    before = _host()
    with _owner(layout):
        _until(lambda: moment(layout))
    _until(lambda: not _left(layout))
    assert _host() == before


def test_first_process_killed(layout: Layout) -> None:
    before = _host()
    with _owner(layout):
        _until(lambda: _running_pod(layout))
        os.kill(int(layout.init_pid.read_text()), signal.SIGKILL)
        _until(lambda: not _left(layout) or not boot.alive(layout))
    _until(lambda: not _left(layout))
    assert _host() == before


def test_keeper_killed_and_then_taken_down(layout: Layout) -> None:
    before = _host()
    with _owner(layout):
        _until(lambda: _running_pod(layout))
        os.kill(int(layout.lock.read_text()), signal.SIGKILL)
    _until(lambda: not boot.alive(layout))
    boot.down(layout)
    assert _left(layout) == []
    assert _host() == before
