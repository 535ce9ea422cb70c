"""The cluster that the end-to-end tests run in; `make e2e` says which by PENSTOCK_CLUSTER."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.benchmarks.parts import dense_model, request_body
from tests.cluster.binary import Report
from tests.cluster.cluster import Cluster
from tests.cluster.other_clusters import open_cluster
from tests.e2e.cluster.figures import publish_faults
from tests.e2e.cluster.installation import Installation, build_images
from tests.e2e.cluster.model_store import ModelStore, model_store


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without PENSTOCK_CLUSTER, no test here runs: they take a whole cluster, and root."""
    if "PENSTOCK_CLUSTER" in os.environ:
        return
    here = [item for item in items if item.get_closest_marker("cluster")]
    if here:
        config.hook.pytest_deselected(items=here)
        items[:] = [item for item in items if not item.get_closest_marker("cluster")]


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """Shows a line of progress at once."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    terminal = pytestconfig.pluginmanager.getplugin("terminalreporter")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            terminal.ensure_newline()
            terminal.write_line(line)

    return say


@pytest.fixture(scope="session")
def cluster(report: Report) -> Iterator[Cluster]:
    """The cluster: one that is up already, or one for this session."""
    found = open_cluster(os.environ["PENSTOCK_CLUSTER"], report)
    yield found
    found.stop()


@pytest.fixture(scope="session")
def installation(cluster: Cluster, report: Report) -> Iterator[Installation]:
    """The chart, installed with images of this checkout."""
    found = Installation(cluster, build_images(cluster, report))
    found.upgrade()
    yield found
    found.uninstall()


@pytest.fixture(scope="session")
def figures() -> Iterator[list[dict[str, Any]]]:
    """Rows of what faults did to a load, written to build/bench in the end."""
    rows: list[dict[str, Any]] = []
    yield rows
    if rows:
        publish_faults(rows)


@pytest.fixture(scope="session")
def store(cluster: Cluster) -> Iterator[ModelStore]:
    """An S3 server in the cluster."""
    with model_store(cluster) as found:
        yield found


@pytest.fixture(scope="session")
def model_uri(store: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small ONNX model in the store; `body` is a request to it."""
    return store.upload(dense_model(tmp_path_factory.mktemp("model") / "model.onnx", (64, 32, 10)), "dense")


@pytest.fixture(scope="session")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a request."""
    path = tmp_path_factory.mktemp("request") / "body.json"
    path.write_bytes(request_body())
    return path
