"""The standalone operator as a process: a run becomes a Job, the Job a process, and its result a verdict, kills or not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.ports import free_ports
from tests.waiting import eventually, is_alive

from penstock_operator.kinds import CLUSTER_OPTIMIZATION_PROFILE, OPTIMIZATION_RUN
from penstock_operator.runtime.cluster import JOB, Key, Manifest
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_runtime.signing import make_keys

ROOT = Path(__file__).parents[2]
KEY = Key("default", "search")
RUN: dict[str, Any] = {
    "apiVersion": OPTIMIZATION_RUN.api_version,
    "kind": OPTIMIZATION_RUN.kind,
    "metadata": {"name": KEY.name, "namespace": KEY.namespace},
    "spec": {
        "model": {"storageUri": "file:///models/1", "modelFormat": "onnx"},
        "profileRef": {"kind": "ClusterOptimizationProfile", "name": "balanced"},
    },
}


class OperatorFolder:
    """A state folder with an operator that may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.cluster = EmbeddedCluster(folder / "cluster.db")
        (folder / "key.pub").write_text(make_keys(folder / "key"))
        # What the operator's interpreter finds first under the optimizer's name.
        pretended = folder / "path" / "penstock_optimizer"
        pretended.mkdir(parents=True)
        (pretended / "__init__.py").touch()
        shutil.copy(ROOT / "tests" / "integration" / "pretend_optimizer.py", pretended / "__main__.py")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (health,) = free_ports(1)
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "penstock_operator.main", "--standalone", str(self.folder / "cluster.db"),
                "--artifact-store", (self.folder / "store").as_uri(), "--signing-key-file", str(self.folder / "key"),
                "--trusted-key-file", str(self.folder / "key.pub"), "--optimizer-workspace", str(self.workspace),
                "--health-port", str(health),
                # The next one takes the killed one's lease over at once.
                "--identity", "the-operator",
            ],
            env={**os.environ, "PYTHONPATH": str(self.folder / "path")},
        )  # fmt: skip

    def stop(self, *, kill: bool = False) -> None:
        if self.process is not None:
            (self.process.kill if kill else self.process.terminate)()
            self.process.wait(30)
            self.process = None

    def status(self) -> Manifest:
        found = self.cluster.get(OPTIMIZATION_RUN, KEY)
        assert found is not None
        return found.get("status") or {}

    def started(self) -> list[int]:
        path = self.workspace / "started"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OperatorFolder]:
    made = OperatorFolder(tmp_path)
    profile = yaml.safe_load((ROOT / "manifests" / "profiles" / "balanced.yaml").read_text())
    made.cluster.apply(CLUSTER_OPTIMIZATION_PROFILE, profile, "test")
    yield made
    made.stop()
    made.cluster.close()


def test_a_run_reaches_its_verdict_over_a_killed_operator(home: OperatorFolder) -> None:
    (home.workspace / "wait").touch()
    home.cluster.apply(OPTIMIZATION_RUN, RUN, "test")
    home.start()
    told = eventually(lambda: (home.status().get("progress") or {}).get("message"), "progress is told")
    assert "pretending" in told
    (first,) = home.started()

    home.stop(kill=True)
    eventually(lambda: not is_alive(first), "the search ends with its operator")
    home.start()
    eventually(lambda: len(home.started()) == 2, "the search is started again")
    time.sleep(0.5)
    assert len(home.started()) == 2

    (home.workspace / "wait").unlink()
    eventually(lambda: home.status().get("verdict") == "Rejected", "the verdict is told")
    (job,) = home.cluster.list(JOB, "default").items
    assert (job["status"]["succeeded"], home.status()["attempts"]) == (1, 1)
    assert home.status()["summary"] == "It was only pretended."


def test_a_deleted_run_ends_its_process(home: OperatorFolder) -> None:
    (home.workspace / "wait").touch()
    home.cluster.apply(OPTIMIZATION_RUN, RUN, "test")
    home.start()
    (process,) = eventually(home.started, "the search runs")
    home.cluster.delete(OPTIMIZATION_RUN, KEY)
    eventually(lambda: not is_alive(process), "its process ends")
    assert not home.cluster.list(JOB, "default").items
