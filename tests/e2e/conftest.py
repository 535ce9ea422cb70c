"""The whole platform for the end-to-end tests, and a namespace with a pool for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.benchmarks.parts import dense_model
from tests.cluster.controlplane import ControlPlane
from tests.e2e.stack import Platform, platform
from tests.integration.local_ray import LocalRay
from tests.integration.replica_collector import Collector


@pytest.fixture(scope="module")
def penstock(
    api_server: ControlPlane, ray_head: LocalRay, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """API server, Ray, gateway and an operator with its own identity.

    For one module: an operator owns its Ray cluster's applications, and other tests bring operators of their own.
    """
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    with platform(api_server, ray_head, tmp_path_factory.mktemp("e2e"), environment) as running:
        yield running


@pytest.fixture
def tenant(penstock: Platform) -> Iterator[str]:
    """A namespace with a pool; its deployments are taken down afterwards."""
    with penstock.tenant() as name:
        yield name


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models that take and give the same, and differ in what they say."""
    folder = tmp_path_factory.mktemp("models")
    return {name: dense_model(folder / name / "model.onnx", (64, 32, 10), seed) for seed, name in enumerate("ab")}
