"""The benchmark of scale, small: a real operator takes tenants through their whole life and leaves nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from tests.benchmarks.cluster_scale import run
from tests.benchmarks.scale_world import Scale

pytestmark = pytest.mark.apiserver


@pytest.mark.usefixtures("control_plane_binary")
def test_tenants_come_rest_survive_operators_and_go() -> None:
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:  # the path of a socket in it may not be long
        phases = run(Scale(nodes=0, namespaces=2, deployments=5, gateways=1), Path(folder), rest_seconds=3.0)
    made, resting, looked_at, _ = phases
    assert made.writes > 0
    assert (resting.reads, resting.writes) == (0, 0), resting.requests
    assert looked_at.writes == 0, looked_at.requests
