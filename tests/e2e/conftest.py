"""The whole platform once for all end-to-end tests, and a namespace with a pool for each."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.benchmarks.parts import dense_model
from tests.cluster.controlplane import ControlPlane
from tests.e2e.otlp_receiver import Receiver, receiver
from tests.e2e.stack import Platform, platform
from tests.integration.local_ray import local_ray


@pytest.fixture(scope="session")
def spans() -> Iterator[Receiver]:
    """A real OTLP/HTTP receiver."""
    with receiver() as found:
        yield found


@pytest.fixture(scope="session")
def penstock(api_server: ControlPlane, spans: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """API server, Ray, gateway and an operator with its own identity."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": spans.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    with ExitStack() as stack:
        ray = stack.enter_context(local_ray(cpus=4, environment={"PYTHONPATH": str(Path.cwd()), **environment}))
        yield stack.enter_context(platform(api_server, ray, tmp_path_factory.mktemp("e2e"), environment))


@pytest.fixture
def tenant(penstock: Platform) -> Iterator[str]:
    """A namespace with a pool; its deployments are taken down afterwards."""
    name = f"tenant-{secrets.token_hex(3)}"
    penstock.kubectl("create", "namespace", name)
    penstock.add_tenant(name)
    yield name
    penstock.kubectl("delete", "infdep", "--all", "-n", name, "--timeout=120s")
    penstock.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models that take and give the same, and differ in what they say."""
    folder = tmp_path_factory.mktemp("models")
    return {name: dense_model(folder / name / "model.onnx", (64, 32, 10), seed) for seed, name in enumerate("ab")}
