"""What is done to the platform while revisions are judged: operators killed in turn, gateways exchanged, replicas killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import httpx
from tests.benchmarks import parts, report
from tests.benchmarks.rollout_lane import Lane, StatusLook
from tests.e2e.stack import Platform
from tests.waiting import is_alive

from penstock.api.rollout import RolloutPhase

_LEASE: Final = "/apis/coordination.k8s.io/v1/namespaces/penstock-system/leases/penstock-operator"


class Disturbance(ABC):
    """Something that goes on while rollouts do."""

    def start(self) -> None:  # noqa: B027 -- most have nothing to begin
        """Begin."""

    def stop(self) -> None:  # noqa: B027 -- as above
        """End."""

    def watch(self, lane: Lane) -> Callable[[StatusLook], str]:
        """For one rollout: is shown each look, and says what it did."""
        del lane
        return lambda _: ""

    @abstractmethod
    def told(self) -> str:
        """What was done in all."""


class OperatorKiller(Disturbance):
    """Of two operators the one that leads is killed every so many seconds, and started again once the other leads."""

    def __init__(self, platform: Platform, seconds: float) -> None:
        self._platform, self._seconds = platform, seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._killed: list[tuple[str, float]] = []
        """Who, and seconds until the other led."""
        second = platform.operator("operator-b")
        second.start()
        self._operators = {"operator-a": platform.operators[0], "operator-b": second}

    def start(self) -> None:
        """Begin to kill."""
        self._thread.start()

    def stop(self) -> None:
        """No more."""
        self._over.set()
        self._thread.join(120)

    def told(self) -> str:
        """How many, and how long nobody led."""
        waits = sorted(seconds for _, seconds in self._killed)
        middle = waits[len(waits) // 2] if waits else 0.0
        return f"operators killed in turn: {len(self._killed)}; the other led after {middle:.0f} s in the middle"

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            leader = self._leader()
            if leader not in self._operators:
                continue
            self._operators[leader].kill()
            killed = time.monotonic()
            while self._leader() == leader and not self._over.is_set() and time.monotonic() < killed + 90:
                time.sleep(0.5)
            self._killed.append((leader, time.monotonic() - killed))
            report.progress(f"{leader} killed; {self._leader()} leads after {self._killed[-1][1]:.0f} s")
            self._operators[leader].start()

    def _leader(self) -> str:
        try:
            return str(self._platform.read(_LEASE)["spec"].get("holderIdentity") or "")
        except httpx.HTTPError:
            return ""


class GatewayExchanger(Disturbance):
    """Of two gateways, one is exchanged in each rollout, once the candidate has a share: a new one, that knows nothing, at its place."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._gateways = [platform.gateway, *platform.others]
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._seconds: list[float] = []

    def stop(self) -> None:
        """End those that came."""
        with self._lock:
            self._stack.close()

    def watch(self, lane: Lane) -> Callable[[StatusLook], str]:
        """Exchange when it steps for the first time; while one is exchanged, no other is."""
        done = False

        def look(seen: StatusLook) -> str:
            nonlocal done
            if done or seen.record["phase"] != RolloutPhase.STEPPING or not self._lock.acquire(blocking=False):
                return ""
            done = True
            threading.Thread(target=self._exchange).start()
            return f"gateway {len(self._seconds) % len(self._gateways)} exchanged at {seen.weight} %"

        del lane
        return look

    def told(self) -> str:
        """How many, and how long there was but one."""
        return f"gateways exchanged: {len(self._seconds)}; {max(self._seconds, default=0):.0f} s until the new one was there, at most"

    def _exchange(self) -> None:
        """As Kubernetes does: SIGTERM, patience, and another one that is ready once an operator has told it all."""
        began = time.monotonic()
        try:
            place = len(self._seconds) % len(self._gateways)
            old = self._gateways[place]
            os.kill(old.pid, signal.SIGTERM)
            parts.until("the gateway's end", lambda: not is_alive(old.pid), 90, pause=0.2)
            ports = [int(url.rpartition(":")[2]) for url in (old.url, old.control_url)]
            folder = self._platform.folder / f"gateway-new-{len(self._seconds)}"
            fresh = parts.gateway(
                folder,
                self._platform.environment,
                ("--await-operator-seconds", "60"),
                port=ports[0],
                control_port=ports[1],
            )
            self._gateways[place] = self._stack.enter_context(fresh)
        finally:
            self._seconds.append(time.monotonic() - began)
            self._lock.release()


class ReplicaKiller(Disturbance):
    """One replica of an arm is killed by SIGKILL in each rollout, once the candidate has a share."""

    def __init__(self, platform: Platform, arm: str) -> None:
        self._platform, self._arm = platform, arm
        self._count = 0

    def watch(self, lane: Lane) -> Callable[[StatusLook], str]:
        """Kill when it steps for the first time."""
        done = False

        def look(seen: StatusLook) -> str:
            nonlocal done
            if done or seen.record["phase"] != RolloutPhase.STEPPING:
                return ""
            done = True
            revision = seen.record[self._arm]
            pids = self._platform.replica_processes(lane.namespace, lane.name, revision)
            if not pids:
                return f"no replica of {revision} was found"
            os.kill(pids[0], signal.SIGKILL)
            self._count += 1
            return f"replica {pids[0]} of {self._arm} {revision} killed"

        return look

    def told(self) -> str:
        """How many."""
        return f"replicas of the {self._arm} killed: {self._count}"
