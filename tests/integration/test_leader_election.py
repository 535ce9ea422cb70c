"""Two processes and one lease on a real API server."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cluster.controlplane import ControlPlane

from penstock_operator.runtime.cluster import LEASE, Key
from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster
from penstock_operator.runtime.leading.lease import LeaseSettings

pytestmark = pytest.mark.apiserver

PROGRAM = Path(__file__).with_name("election_candidate.py")


class Candidate:
    """A running process, and what it says."""

    def __init__(self, kubeconfig: Path, namespace: str, identity: str) -> None:
        self.said: queue.Queue[str] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(kubeconfig), namespace, identity], stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.said.put(line.strip())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._reader.join(10)


@contextmanager
def candidate(kubeconfig: Path, namespace: str, identity: str) -> Iterator[Candidate]:
    made = Candidate(kubeconfig, namespace, identity)
    try:
        yield made
    finally:
        made.kill()


def test_when_the_leader_is_killed_the_other_takes_over(api_server: ControlPlane, namespace: str) -> None:
    cluster = KubernetesCluster.connect(api_server.kubeconfig)
    with (
        candidate(api_server.kubeconfig, namespace, "first") as first,
        candidate(api_server.kubeconfig, namespace, "second") as second,
    ):
        leader, follower = _leader_of(first, second)
        assert follower.said.empty()
        leader.kill()
        killed = time.monotonic()
        assert follower.said.get(timeout=60) == "elected"
        print(f"took over {time.monotonic() - killed:.1f} s after the kill")
        lease = cluster.get(LEASE, Key(namespace, "operator"))
        assert lease is not None
        assert lease["spec"]["leaseTransitions"] == 1
    cluster.close()


def test_the_leases_times_add_up_to_a_takeover_within_15_seconds() -> None:
    times = LeaseSettings()
    assert times.duration + times.retry < 15
    assert times.renew_deadline < times.duration


def _leader_of(first: Candidate, second: Candidate) -> tuple[Candidate, Candidate]:
    """Leader and follower, once one has been elected and the other had time to see it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for leader, follower in ((first, second), (second, first)):
            if not leader.said.empty():
                assert leader.said.get() == "elected"
                time.sleep(2 * LeaseSettings().retry)
                return leader, follower
        time.sleep(0.1)
    raise AssertionError("nobody was elected")
