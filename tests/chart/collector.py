"""A real OpenTelemetry Collector with the configuration that the chart gives its own."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx
from tests.chart.helm import Object, Rendered, render
from tests.cluster.tools import tool
from tests.ports import free_port

NAME = "penstock-collector"
IMAGE = "docker.io/penstock-test/otelcol:v0.165.0"
TO_STANDARD_OUTPUT: Object = {
    "exporters": {"file": {"path": "/dev/stdout"}},
    "service": {"pipelines": {"traces": {"exporters": ["file"]}}},
}
"""Of `collector.config`, as docs/install.md has it: the Collector's log then has the lines that `penstock trace` reads."""
_SECONDS = 60.0


def with_config(config: Object | None = None) -> Rendered:
    """The chart with a Collector, whose configuration is changed by these values."""
    return render({"collector": {"enabled": True, "image": IMAGE, "config": config or {}}})


def write_configuration(chart: Rendered, folder: Path) -> Path:
    """The file that the Collector's pod is given, in a folder of this machine."""
    (argument,) = chart.arguments(NAME)
    (mount,) = chart.pods()[f"Deployment/{NAME}"]["containers"][0]["volumeMounts"]
    name = argument.removeprefix(f"--config={mount['mountPath']}/")
    path = folder / name
    path.write_text(chart.one("ConfigMap", NAME)["data"][name])
    return path


def validate(configuration: Path) -> subprocess.CompletedProcess[str]:
    """What the Collector says of a file: its status is 0 where it would start with it."""
    command = [str(tool("otelcol")), "validate", f"--config={configuration}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@dataclass(frozen=True)
class RunningCollector:
    """A Collector on loopback."""

    otlp: str
    """Where spans are sent to."""
    health: str
    """What its pod's readiness is asked at."""
    output: list[str] = field(default_factory=list)
    """Lines of standard output so far."""
    log: list[str] = field(default_factory=list)
    """Lines of standard error so far."""

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait for something that it does.

        Raises:
            AssertionError: it did not within a minute; the message has its log.
        """
        deadline = time.monotonic() + _SECONDS
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not within {_SECONDS:g} s\n{''.join(self.log)}"
            time.sleep(0.05)


@contextmanager
def running(chart: Rendered, folder: Path) -> Iterator[RunningCollector]:
    """The chart's Collector, ready, with other ports on loopback in the place of its pod's; ended by SIGTERM.

    Raises:
        AssertionError: it does not listen where its pod's ports are, did not become ready, or did not end well.
    """
    configuration = write_configuration(chart, folder)
    (container,) = chart.pods()[f"Deployment/{NAME}"]["containers"]
    ports = {}
    text = configuration.read_text()
    for port in container["ports"]:
        listens = f"endpoint: :{port['containerPort']}"
        assert text.count(listens) == 1, f"{listens}, the port {port['name']}, is not listened on:\n{text}"
        ports[port["name"]] = f"127.0.0.1:{free_port()}"
        text = text.replace(listens, f"endpoint: {ports[port['name']]}")
    configuration.write_text(text)
    probe = container["readinessProbe"]["httpGet"]
    started = RunningCollector(f"http://{ports['otlp-http']}", f"http://{ports[probe['port']]}{probe['path']}")
    with _process(configuration, started) as process:
        started.until("it is ready", lambda: process.poll() is not None or _answers(started.health))
        assert process.poll() is None, f"it ended with {process.returncode}\n{''.join(started.log)}"
        yield started
    assert process.returncode == 0, "".join(started.log)


@contextmanager
def _process(configuration: Path, collector: RunningCollector) -> Iterator[subprocess.Popen[str]]:
    # The kernel ends it with this process, also where that is killed.
    command = ["setpriv", "--pdeathsig", "KILL", str(tool("otelcol")), f"--config={configuration}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        readers = [_reader(process.stdout, collector.output), _reader(process.stderr, collector.log)]
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            for each in readers:
                each.join(_SECONDS)


def _reader(stream: IO[str], lines: list[str]) -> threading.Thread:
    thread = threading.Thread(target=lines.extend, args=(stream,), daemon=True)
    thread.start()
    return thread


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
