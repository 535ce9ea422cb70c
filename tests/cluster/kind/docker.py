"""The docker that kind's nodes run in: the one that answers here, or one of our own where there is none."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster import packages
from tests.cluster.binary import Report, cache_directory
from tests.cluster.packages import NotPossibleError

_START_SECONDS = 60.0
_SECONDS = 900
_RUNTIME = Path(__file__).with_name("runtime.py")


class Docker:
    """Docker's command line, and the environment that leads it and kind to its daemon.

    Args:
        folder: what a daemon of our own keeps while it runs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "docker.sock"
        self.environment = os.environ | ({"DOCKER_HOST": f"unix://{self._socket}"} if self._socket.exists() else {})

    def run(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        """Run docker; its output.

        Raises:
            NotPossibleError: it failed, and was not to.
        """
        done = subprocess.run(
            ["docker", *arguments],
            input=text, capture_output=True, text=True, timeout=_SECONDS, check=False, env=self.environment,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise NotPossibleError(f"docker {' '.join(arguments[:4])}: {done.stderr.strip()}")
        return done.stdout

    def answers(self) -> bool:
        """Whether there is a daemon."""
        return shutil.which("docker") is not None and bool(self.run("info", "-f", "{{.ID}}", check=False).strip())

    def start(self, report: Report) -> None:
        """Start a daemon of our own, unless one answers. It stays until `stop`; images stay in the cache.

        Raises:
            NotPossibleError: it does not start, or cannot be installed.
        """
        if self.answers():
            return
        packages.install_docker(report)
        report("starting docker")
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = self._folder / "daemon.json"
        configuration.write_text(json.dumps(self._configuration()))
        with (self._folder / "docker.log").open("wb") as log:
            process = subprocess.Popen(
                ["dockerd", "--config-file", str(configuration)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.environment = os.environ | {"DOCKER_HOST": f"unix://{self._socket}"}
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                words = (self._folder / "docker.log").read_text()[-2000:]
                raise NotPossibleError(f"CLUSTER=kind needs docker, and a daemon of our own does not start:\n{words}")
            time.sleep(0.1)
        process.returncode = 0  # it outlives this process: nobody waits for it

    def stop(self) -> None:
        """End a daemon of our own, if there is one."""
        pid = self._folder / "docker.pid"
        if not pid.exists():
            return
        process = int(pid.read_text())
        os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + _START_SECONDS
        while Path("/proc", str(process)).exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _configuration(self) -> dict[str, object]:
        return {
            "data-root": str(cache_directory() / "docker"),
            "exec-root": str(self._folder / "exec"),
            "hosts": [f"unix://{self._socket}"],
            "pidfile": str(self._folder / "docker.pid"),
            "bridge": "none",  # kind makes a network of its own
            "default-runtime": "restricted",
            "runtimes": {"restricted": {"path": sys.executable, "runtimeArgs": ["-I", str(_RUNTIME)]}},
        }
