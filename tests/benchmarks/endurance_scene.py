"""Gateways and replicas that come and go under `endurance`'s load, as the operator and a Service would have them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.benchmarks import parts, processes, report
from tests.benchmarks.endurance_cases import MODEL, save_revision
from tests.integration.replica_process import ReplicaProcess
from tests.ports import free_port

from penstock.routing.tokens import admin_token, replica_token
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.gateway.keeper import GatewayKeeper, KnownDeployments
from penstock_operator.runtime.cluster import Key

NAMESPACE: Final = "default"
_HOSTS: Final = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
_NAME: Final = "gateways.test"
_ENVIRONMENT: Final = {"OTEL_SDK_DISABLED": "true"}
_SHUTDOWN_DELAY_SECONDS, _DRAIN_SECONDS = 5, 15
_NOTICE_SECONDS: Final = 1.0
"""From a gateway's signal until clients are told of another: a Service takes its time, too."""


class Clients:
    """The load, in a process of its own, and the last that it said."""

    def __init__(self, arguments: Sequence[int], cpus: str) -> None:
        command = ["taskset", "-c", cpus, sys.executable, "-m", "tests.benchmarks.endurance_load", *map(str, arguments)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.said: dict[str, Any] = {"finished": 0, "failed": 0, "wrong": 0, "seconds": 0.0}
        self.result: dict[str, Any] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            told = json.loads(line)
            if "result" in told:
                self.result = told["result"]
            else:
                self.said = told

    def tell(self, **what: Any) -> None:
        """How things stand now."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(what).encode() + b"\n")
        self._child.stdin.flush()

    def check(self) -> None:
        """Raise where the load has ended by itself."""
        if self._child.poll() is not None:
            raise RuntimeError(f"the clients ended with status {self._child.returncode}")

    def finish(self) -> dict[str, Any]:
        """Have them end with the answers that are under way; what they saw."""
        self.tell(finish=True)
        self._child.wait(90)
        self._reader.join(10)
        if self.result is None:
            raise RuntimeError(f"the clients ended with status {self._child.returncode} and no result")
        return self.result

    def end(self) -> None:
        """End them, however things are."""
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait(10)


class Scene:
    """All that serves.

    Args:
        folder: for models and state.
        replicas: of each revision.
        note: is told what happens.
    """

    def __init__(self, folder: Path, replicas: int, note: Callable[[str], None]) -> None:
        self._folder, self._count, self._note = folder, replicas, note
        self._control_port = free_port()
        self._gateways: dict[str, tuple[ExitStack, parts.GatewayProcess]] = {}
        """By host."""
        self._replicas: list[ReplicaProcess] = []
        self._names: dict[int, str] = {}
        self._lock = threading.Lock()
        self.revision = 0
        urls = (f"http://{_NAME}:{self._control_port}",)
        self._keeper = GatewayKeeper(
            Fleet(urls, admin_token("benchmark-secret"), lambda _: tuple(self._gateways)),
            KnownDeployments(lambda: {Key(NAMESPACE, MODEL)}, lambda _: True, lambda _: None),
            lambda: True,
        )

    # What is there.

    def addresses(self) -> list[tuple[str, int]]:
        """Where clients may connect, as a Service would list it."""
        return [(host, int(edge.url.rpartition(":")[2])) for host, (_, edge) in self._gateways.items()]

    def processes(self) -> dict[str, int]:
        """Those that serve now, by name."""
        with self._lock:
            found = dict(self._names)
        named = {}
        for pid, name in found.items():
            named[name] = pid
            if not name.startswith("gateway"):
                continue
            for master in processes.children(pid):
                for worker in processes.children(master):
                    named[f"{name}: HAProxy's worker {worker}"] = worker
        return named

    # What happens.

    def begin(self) -> None:
        """Two gateways and the first revision's replicas."""
        for host in _HOSTS[:2]:
            self._open_gateway(host)
        self._declare(0)
        self._replicas = self._start_replicas(0)
        for _, edge in self._gateways.values():
            parts.until("the leases", lambda edge=edge: len(edge.receiving(NAMESPACE, MODEL)) == self._count)  # type: ignore[misc]

    def roll(self, clients: Clients) -> None:
        """A rolling update: new replicas take their leases, requests go to them, the old ones are told to leave."""
        old, former = self._replicas, self.revision
        self.revision += 1
        what = f"rolling update {self.revision}"
        self._say(clients, f"{what}: new replicas start")
        fresh = self._start_replicas(self.revision)
        self._say(clients, f"{what}: both revisions' replicas are there", revisions=[former, self.revision])
        self._declare(self.revision)
        self._say(clients, f"{what}: the old replicas leave")
        for each in old:
            each.process.send_signal(signal.SIGTERM)
        for each in old:
            self._end_replica(each)
        self._replicas = fresh
        self._say(clients, "nothing", revisions=[self.revision])

    def exchange(self, clients: Clients) -> None:
        """A gateway is exchanged: a new one becomes ready, and one of the others leaves."""
        self._say(clients, "exchange of a gateway: a new one starts")
        fresh = _HOSTS[2]
        self._open_gateway(fresh, "--await-operator-seconds", "60")
        url = f"http://{fresh}:{self._control_port}/readyz"
        parts.until("the new gateway", lambda: (self._keeper.look(), parts.http_json(url) == "ok")[1], pause=0.5)
        self._say(clients, "exchange of a gateway: both are there", gateways=self.addresses())
        leaving, (stack, edge) = next(iter(self._gateways.items()))
        self._say(clients, "exchange of a gateway: the old one leaves")
        # The context ends it as Kubernetes does, by SIGTERM and patience.
        closing = threading.Thread(target=stack.close)
        closing.start()
        time.sleep(_NOTICE_SECONDS)
        del self._gateways[leaving]
        clients.tell(gateways=self.addresses())
        closing.join()
        with self._lock:
            del self._names[edge.pid]
        self._say(clients, "nothing")

    def kill_replica(self, clients: Clients) -> None:
        """A control: a replica dies without a word, with what it has taken."""
        self._say(clients, "a replica is killed (SIGKILL)")
        victim = self._replicas.pop()
        victim.process.kill()
        self._end_replica(victim)

    def end(self) -> None:
        """End all that is there."""
        for each in self._replicas:
            self._end_replica(each)
        for stack, _ in self._gateways.values():
            stack.close()

    # Inside.

    def _say(self, clients: Clients, happening: str, **more: Any) -> None:
        self._note(happening)
        clients.tell(happening=happening, **more)

    def _open_gateway(self, host: str, *arguments: str) -> None:
        stack = ExitStack()
        arguments += ("--shutdown-delay-seconds", str(_SHUTDOWN_DELAY_SECONDS), "--drain-seconds", str(_DRAIN_SECONDS))
        edge = stack.enter_context(
            parts.gateway(self._folder / host, _ENVIRONMENT, arguments, host, self._control_port)
        )
        self._gateways[host] = stack, edge
        with self._lock:
            self._names[edge.pid] = f"gateway {_HOSTS.index(host) + 1}"

    def _declare(self, revision: int) -> None:
        """As the operator does: each gateway answers once requests go that way."""
        route = {
            "namespace": NAMESPACE,
            "model": MODEL,
            "revisions": {f"r{revision}": 100},
            "access": {"required": False},
        }
        for _, edge in self._gateways.values():
            url = f"{edge.control_url}/v1/routes/{NAMESPACE}/{MODEL}"
            parts.http_json(url, "PUT", route, admin_token(edge.secret))

    def _start_replicas(self, revision: int) -> list[ReplicaProcess]:
        """Those of a revision, once every gateway has their leases."""
        model = save_revision(self._folder / f"r{revision}" / "model.onnx", revision)
        # Where gateways will be, too: a name's addresses come and go, and a loopback host has no name server.
        controls = tuple(f"http://{host}:{self._control_port}" for host in _HOSTS)
        started = []
        for number in range(self._count):
            replica = ReplicaProcess(
                _ENVIRONMENT,
                storage_uri=model.as_uri(), revision=f"r{revision}", replica_id=f"r{revision}-{number}", gateways=controls,
                registration_token=replica_token("benchmark-secret", NAMESPACE, MODEL),
            )  # fmt: skip
            started.append(replica)
            report.progress(f"replica r{revision}-{number} serves at {replica.address}")
            with self._lock:
                self._names[replica.process.pid] = f"replica r{revision}-{number}"
        wanted = {f"r{revision}-{number}" for number in range(self._count)}
        for _, edge in self._gateways.values():
            parts.until("the leases", lambda edge=edge: wanted <= _leased(edge))  # type: ignore[misc]
        return started

    def _end_replica(self, replica: ReplicaProcess) -> None:
        replica.close()
        with self._lock:
            self._names.pop(replica.process.pid, None)


def _leased(edge: parts.GatewayProcess) -> set[str]:
    return {each["replicaId"] for route in edge.routes() for each in route["replicas"]}


def pin(cpu: int) -> None:
    """This process, and what it starts from now on, on one core."""
    for task in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(task.name), {cpu})
