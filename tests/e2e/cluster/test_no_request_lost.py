"""At a steady hundred requests a second through the gateway, none fails while parts of the platform come and go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.binary import Report
from tests.e2e.cluster.faults import (
    FAULTS,
    Served,
    gateway_killed,
    head_killed,
    serve_twice,
    two_workers,
    under_load,
)  # fmt: skip
from tests.e2e.cluster.figures import row
from tests.e2e.cluster.installation import Installation, build_images, tenant
from tests.e2e.cluster.model_store import ModelStore

pytestmark = [pytest.mark.cluster, pytest.mark.last, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def served(
    installation: Installation, store: ModelStore, model_uri: str, body: Path, report: Report
) -> Iterator[Served]:
    """A model with a replica on each of two workers, and a later release to go to.

    The release has no Collector any more, for which a single node has no room when the other is drained.
    """
    later = build_images(installation.cluster, report, tag="later")
    plain = replace(installation, values={})
    plain.upgrade()
    with tenant(plain, store.credentials()) as made:
        yield serve_twice(Served(made, "dense", body, later), model_uri, two_workers())


@pytest.mark.parametrize("name", FAULTS)
def test_while(served: Served, figures: list[dict[str, Any]], name: str) -> None:
    load = under_load(served, FAULTS[name])
    figures.append(row(name, load))
    report = load.report
    assert report.failed == 0, report
    assert set(report.statuses) == {"200"}
    # Until its readiness is looked at again, Kubernetes sends new connections to a crashed gateway, too.
    assert report.refused == 0 or FAULTS[name] is gateway_killed, report


def test_while_the_head_is_lost_with_its_state(served: Served, figures: list[dict[str, Any]]) -> None:
    """Its workers end and start anew. Requests wait meanwhile, as many as the gateways hold; beyond that they are told."""
    load = under_load(served, head_killed)
    figures.append(row("head killed, its state with it", load))
    report = load.report
    # 503: too many wait already. 429: all that this one client may have open at both gateways wait, which they do where
    # a new head takes over 20 seconds. 0: this client gave its place in the queue up after its 30 seconds.
    assert set(report.statuses) <= {"200", "503", "429", "0"}, report
    assert report.failed < report.statuses["200"], report
    calm = under_load(served, lambda _: time.sleep(5)).report
    assert calm.failed == 0, calm
