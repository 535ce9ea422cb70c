"""The cluster that the end-to-end tests run in; `make e2e` says which by PENSTOCK_CLUSTER."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from images.catalogue import ImageName
from tests.benchmarks.parts import dense_model, request_body
from tests.cluster.binary import Report
from tests.cluster.cluster import Cluster
from tests.cluster.other_clusters import open_cluster
from tests.distribution import reporter
from tests.e2e.cluster.extras import collecting, optimizing
from tests.e2e.cluster.figures import publish_faults
from tests.e2e.cluster.installation import Installation, build_images
from tests.e2e.cluster.model_store import ModelStore, start_store
from tests.sharing import common_folder, shared


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
    return reporter(pytestconfig)


@pytest.fixture(scope="session")
def common(pytestconfig: pytest.Config) -> Path:
    """The folder in which the session's workers tell each other what there is already."""
    return common_folder(pytestconfig)


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config, common: Path, report: Report) -> Iterator[Cluster]:
    """The cluster: one that is up already, or one for this session."""
    kind, owner = os.environ["PENSTOCK_CLUSTER"], os.getppid() if hasattr(pytestconfig, "workerinput") else os.getpid()
    opened: list[Cluster] = []

    def first() -> bool:
        opened.append(open_cluster(kind, report, owner))
        return opened[0].started

    def stop(started: bool) -> None:  # noqa: FBT001  # what `first` gave
        opened[0].started = started
        opened[0].stop()

    with shared(common, "cluster", first, stop):
        if not opened:
            opened.append(open_cluster(kind, report, again=True))
        yield opened[0]


@pytest.fixture(scope="session")
def store(cluster: Cluster, common: Path) -> Iterator[ModelStore]:
    """An S3 server in the cluster."""
    with shared(
        common, "store", lambda: start_store(cluster).namespace, lambda made: ModelStore(cluster, made).stop()
    ) as namespace:
        yield ModelStore(cluster, namespace)


@pytest.fixture(scope="session")
def installation(cluster: Cluster, store: ModelStore, common: Path, report: Report) -> Iterator[Installation]:
    """The chart, installed with images of this checkout, a Collector, and a store for what searches find.

    One for all tests, none of which upgrades it but those that are the last. Where images must be built first, that is within
    the time limit of whichever test comes first, and of those that wait for it.
    """

    def install() -> dict[str, Any]:
        made = Installation(cluster, build_images(cluster, report), collecting(cluster, report))
        made.values.update(optimizing(cluster, store, report))
        made.upgrade()
        return {"images": made.images, "values": made.values}

    def uninstall(_: object) -> None:
        Installation(cluster, {}).uninstall()

    with shared(common, "installation", install, uninstall) as made:
        yield Installation(cluster, {ImageName(name): image for name, image in made["images"].items()}, made["values"])


@pytest.fixture(scope="session")
def figures() -> Iterator[list[dict[str, Any]]]:
    """Rows of what faults did to a load, written to build/bench in the end."""
    rows: list[dict[str, Any]] = []
    yield rows
    if rows:
        publish_faults(rows)


@pytest.fixture(scope="session")
def model_uri(store: ModelStore, common: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A small ONNX model in the store; `body` is a request to it."""

    def upload() -> str:
        return store.upload(dense_model(tmp_path_factory.mktemp("model") / "model.onnx", (64, 32, 10)), "dense")

    with shared(common, "model", upload, lambda _: None) as uri:
        yield uri


@pytest.fixture(scope="session")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a request."""
    path = tmp_path_factory.mktemp("request") / "body.json"
    path.write_bytes(request_body())
    return path
