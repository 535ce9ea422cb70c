"""A real Ray head on this machine for tests: own process group, loopback, free ports, token authentication."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_ports
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
PLAIN_RAY = "PENSTOCK_TEST_PLAIN_RAY"
"""Variable that, where it is 1, has no Ray's workers forked."""
STARTUP_SECONDS = 180.0
_STARTS = 3

ACCELERATOR = "nvidia-l4"
"""What the head says that its GPU is."""
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_worker_niceness": "0",
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}
"""What `ray start` needs in its environment so that Serve reacts within a second or two."""

AT_REST = {
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "5000",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.2",
    "REPORTER_UPDATE_INTERVAL_MS": "30000",
}
"""With these Serve computes less while tests wait; a benchmark measures it as it is."""


class HeadEndedError(Exception):
    """Ray ended before it was up; the message holds the end of its output."""


@dataclass(frozen=True)
class LocalRay:
    """Where the head is."""

    dashboard_url: str
    serve_url: str
    """A free port for Serve's HTTP proxy, which starts with the first PUT that asks for it."""
    token: str
    pid: int
    log_dir: Path
    address: str
    """Where other nodes join it."""
    environment: Mapping[str, str]
    """Of what Ray starts."""

    def get(self, path: str, timeout: float = 10.0) -> bytes:
        """GET a path of the dashboard with the token."""
        request = urllib.request.Request(  # always http, on loopback
            self.dashboard_url + path, headers={"authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=timeout) as response:  # as above
            body: bytes = response.read()
            return body


def _arguments(ports: list[int], home: Path, cpus: int, *, forked: bool) -> list[str]:
    names = (
        "--port",
        "--object-manager-port",
        "--node-manager-port",
        "--ray-client-server-port",
        "--dashboard-port",
        "--dashboard-agent-listen-port",
        "--dashboard-agent-grpc-port",
        "--runtime-env-agent-port",
        "--metrics-export-port",
    )
    return [
        # Where this process is killed, Ray is told to end, and ends what it started.
        "setpriv",
        "--pdeathsig",
        "TERM",
        *_ray(home, forked=forked),
        "start",
        "--head",
        "--block",
        "--node-ip-address=127.0.0.1",
        "--dashboard-host=127.0.0.1",
        "--disable-usage-stats",
        # It reads all logs several times a second, for drivers that nobody has here.
        "--include-log-monitor=false",
        f"--num-cpus={cpus}",
        # One that is only counted: Ray places by what it is told.
        "--num-gpus=1",
        f"--labels=ray.io/accelerator-type={ACCELERATOR}",
        "--object-store-memory=100000000",
        f"--temp-dir={home}",
        *(f"{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]


def _ray(home: Path, *, forked: bool) -> list[str]:
    """Its command, or that of one whose workers are forked."""
    if forked and os.environ.get(PLAIN_RAY) != "1":
        return [sys.executable, "-m", "tests.integration.forked_workers", str(home / "workers")]
    return [str(Path(sys.executable).with_name("ray"))]


@contextmanager
def local_ray(
    *, cpus: int = 8, environment: Mapping[str, str] | None = None, forked: bool = False
) -> Iterator[LocalRay]:
    """A running head; ended, with all that it started, on exit.

    Args:
        cpus: that it says it has.
        environment: of what it starts, besides this process's.
        forked: whether its workers are forked from a process with their imports; a benchmark measures them as they are.
    """
    # Ray's sockets lie under this folder, and a socket's path has at most 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="pray"))
    token = secrets.token_hex(32)
    token_file = home / "token"
    token_file.write_text(token)
    env = {
        **os.environ,
        **ENVIRONMENT,
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        **(environment or {}),
    }
    env.pop("RAY_ADDRESS", None)
    process, ray = _start(home, token, cpus, env, forked=forked)
    try:
        for attempt in range(1, _STARTS + 1):
            try:
                _wait_until_up(ray, process, home / "start.log")
                break
            except HeadEndedError:
                # A port was taken meanwhile, or the machine so slow that Ray gave its own parts up after half a minute.
                if attempt == _STARTS:
                    raise
            _end(process, home)
            process, ray = _start(home, token, cpus, env, forked=forked)
        yield ray
    finally:
        _end(process, home)
        shutil.rmtree(home, ignore_errors=True)


def _start(
    home: Path, token: str, cpus: int, environment: Mapping[str, str], *, forked: bool
) -> tuple[subprocess.Popen[bytes], LocalRay]:
    """Begin to start a head on ports that are free now, in a folder of its own below `home`."""
    ports = free_ports(10)
    folder = Path(tempfile.mkdtemp(dir=home, prefix="r"))
    with (home / "start.log").open("wb") as log:
        process = subprocess.Popen(
            _arguments(ports[:9], folder, cpus, forked=forked),
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=ROOT,
        )
    return process, LocalRay(
        f"http://127.0.0.1:{ports[4]}", f"http://127.0.0.1:{ports[9]}", token, process.pid,
        folder / "session_latest/logs", f"127.0.0.1:{ports[0]}", environment,
    )  # fmt: skip


@contextmanager
def another_node(ray: LocalRay, *, cpus: int) -> Iterator[None]:
    """A second node of that Ray on this machine, until exit."""
    before = _count_nodes(ray)
    for _ in range(_STARTS):
        process = _join(ray, cpus)
        try:
            if _has_joined(ray, process, before):
                yield
                return
        finally:
            _stop(process)
    raise HeadEndedError(f"no second node of {_STARTS} joined")


def _has_joined(ray: LocalRay, process: subprocess.Popen[bytes], before: int) -> bool:
    """Whether there is one node more than before, as soon as that is known. As a head, it may find that a port was taken meanwhile."""
    eventually(lambda: process.poll() is not None or _count_nodes(ray) > before, "it joins", STARTUP_SECONDS)
    return process.poll() is None


def _join(ray: LocalRay, cpus: int) -> subprocess.Popen[bytes]:
    names = (
        "--object-manager-port",
        "--node-manager-port",
        "--dashboard-agent-listen-port",
        "--dashboard-agent-grpc-port",
        "--runtime-env-agent-port",
        "--metrics-export-port",
    )
    arguments = [
        *("setpriv", "--pdeathsig", "TERM", str(Path(sys.executable).with_name("ray"))),
        *("start", "--block", f"--address={ray.address}", "--node-ip-address=127.0.0.1", "--disable-usage-stats"),
        "--include-log-monitor=false",
        *(f"--num-cpus={cpus}", "--num-gpus=0", "--object-store-memory=80000000"),
        # Any that are free: the head's workers take theirs from the same range.
        *("--min-worker-port=0", "--max-worker-port=0"),
        *(f"{name}={port}" for name, port in zip(names, free_ports(len(names)), strict=True)),
    ]
    return subprocess.Popen(
        arguments, env=ray.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def _count_nodes(ray: LocalRay) -> int:
    listed = json.loads(ray.get("/api/v0/nodes?detail=1"))["data"]["result"]["result"]
    return sum(each["state"] == "ALIVE" for each in listed)


def _wait_until_up(ray: LocalRay, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise HeadEndedError(f"Ray ended with {process.returncode} before it was up: {log.read_text()[-2000:]}")
        try:
            json.loads(ray.get("/api/serve/applications/"))
        except (urllib.error.URLError, OSError, ValueError):
            time.sleep(0.3)
        else:
            return
    raise TimeoutError(f"Ray is not up after {STARTUP_SECONDS:.0f} s: {log.read_text()[-2000:]}")


def _members(home: Path) -> set[int]:
    """Processes that belong to this head: those whose arguments or environment name its folder."""
    marker = os.fsencode(str(home))
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            texts = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:  # it ended while we looked, or is another user's
            continue
        if marker in texts:
            found.add(int(entry.name))
    return found


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def _end(process: subprocess.Popen[bytes], home: Path) -> None:
    _stop(process)
    deadline = time.monotonic() + 20
    while (left := _members(home)) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.2)
