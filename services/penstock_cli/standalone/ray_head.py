"""Ray on this machine: one that is up already, or a head of our own on loopback with token authentication."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib import metadata
from pathlib import Path

from penstock.errors import Unavailable
from penstock_cli.standalone.child import Child, ChildProgram
from penstock_cli.standalone.http import get
from penstock_cli.standalone.ports import LOOPBACK, free_ports
from penstock_cli.standalone.state import StateFolder

USUAL_URL = f"http://{LOOPBACK}:8265"
_LEAST_CPUS = 4
"""Logical: Serve's controller and proxy and a few replicas fit even on one core."""
_OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Requests never pass through Ray, so its store stays nearly empty."""
_START_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class RayAccess:
    """How to reach a Ray cluster's dashboard."""

    url: str
    serve_url: str
    """Where Serve's own HTTP proxy listens or will listen."""
    token: str | None


class RayHead:
    """A Ray head that this process started."""

    def __init__(self, state: StateFolder, environment: Mapping[str, str]) -> None:
        self._token = state.secret(state.ray_token_file)
        self._state = state
        self._environment = environment
        self._child = Child(self._program())

    def _program(self) -> ChildProgram:
        """Ray on ports that are free now; `access` says which."""
        ports = free_ports(7)
        self.access = RayAccess(f"http://{LOOPBACK}:{ports[1]}", f"http://{LOOPBACK}:{ports[6]}", self._token)
        # Ray's sockets lie in this folder, and a socket's path may have about a hundred bytes: not the state folder.
        scratch = Path(tempfile.mkdtemp(prefix="penstock-ray-"))
        return ChildProgram(
            name="Ray",
            argv=_ray_start(ports, scratch),
            environment={**self._environment, **_ray_environment(self._state.ray_token_file)},
            log=self._state.logs / "ray.log",
            grace_seconds=15.0,
            scratch=scratch,
        )

    def wait_ready(self) -> None:
        """Wait until the dashboard and its Serve endpoints answer; only then does `access` stay as it is.

        Raises:
            Unavailable: Ray ended, on other ports too, or was not ready in time.
        """
        self._child.wait_started(self._answers, _START_SECONDS, self._program)

    def _answers(self) -> bool:
        return get(f"{self.access.url}/api/serve/applications/", self._token)[0] == HTTPStatus.OK

    @property
    def child(self) -> Child:
        """The process."""
        return self._child


def find_running_ray() -> RayAccess | None:
    """A Ray of our version whose dashboard answers where Ray's dashboard usually is, or None.

    Its token, if it wants one, is found where Ray's own tools look: `RAY_AUTH_TOKEN`, then `RAY_AUTH_TOKEN_PATH`.
    """
    token = _token_of_environment()
    try:
        return open_ray(USUAL_URL, token)
    except Unavailable:
        return None


def open_ray(url: str, token: str | None) -> RayAccess:
    """The Ray cluster behind a dashboard's URL.

    Raises:
        Unavailable: it does not answer, refuses the token, or is of another version.
    """
    base = url.rstrip("/")
    status, body = get(f"{base}/api/version", token)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise Unavailable("RayUnauthorized", f"Ray at {base} refuses the token; give it with --ray-token-file")
    if status != HTTPStatus.OK:
        raise Unavailable("RayUnreachable", f"no Ray dashboard answers at {base}")
    found, wanted = json.loads(body).get("ray_version", ""), metadata.version("ray")
    if found != wanted:
        raise Unavailable("RayVersion", f"Ray at {base} is {found}; replicas here need {wanted}")
    host = base.rpartition(":")[0]
    return RayAccess(base, f"{host}:8000", token)


def _token_of_environment() -> str | None:
    given, path = os.environ.get("RAY_AUTH_TOKEN"), os.environ.get("RAY_AUTH_TOKEN_PATH")
    if given:
        return given
    return Path(path).read_text(encoding="ascii").strip() if path and Path(path).is_file() else None


def _ray_start(ports: list[int], scratch: Path) -> list[str]:
    return [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
        f"--node-ip-address={LOOPBACK}",
        f"--port={ports[0]}",
        "--include-dashboard=true",
        f"--dashboard-host={LOOPBACK}",
        f"--dashboard-port={ports[1]}",
        f"--dashboard-agent-listen-port={ports[2]}",
        f"--dashboard-agent-grpc-port={ports[3]}",
        f"--metrics-export-port={ports[4]}",
        f"--ray-client-server-port={ports[5]}",
        f"--num-cpus={max(_LEAST_CPUS, os.cpu_count() or 1)}",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        "--include-log-monitor=false",
        f"--temp-dir={scratch}",
    ]  # fmt: skip


def _ray_environment(token_file: Path) -> dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        # The gateway ends at the same time, so there is nothing to drain for.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Ray's default of ten seconds would make scaling as slow as that.
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    }
