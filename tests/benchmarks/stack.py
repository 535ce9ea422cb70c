"""The whole platform for benchmarks: a real API server, a real Ray, a gateway, an operator."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.benchmarks import report
from tests.cluster.binary import build
from tests.cluster.controlplane import ControlPlane
from tests.e2e.stack import Platform, platform
from tests.integration.local_ray import local_ray


@contextmanager
def running_platform(
    cpus: int = 8, gateways: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[Platform]:
    """Everything up, with a pool in the namespace `default`; without an environment nothing is traced."""
    given = environment or {"OTEL_SDK_DISABLED": "true"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pbench")))
        report.progress("booting the API server")
        api = stack.enter_context(ControlPlane(build(report.progress)))
        report.progress("starting Ray, the gateway and the operator")
        ray = stack.enter_context(local_ray(cpus=cpus, environment={"PYTHONPATH": str(Path.cwd()), **given}))
        running = stack.enter_context(platform(api, ray, folder, given, gateways))
        running.add_tenant("default")
        yield running
