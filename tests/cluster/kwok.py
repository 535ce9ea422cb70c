"""Nodes that exist only in the API server, kept Ready by kwok: accelerators that nobody has, and more of them than fit."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.binary import Report, cache_directory, module_folder
from tests.cluster.tools import PROGRAMS, say, tool

_ANNOTATION = "kwok.x-k8s.io/node"
_STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
TAINT = {"key": _ANNOTATION, "value": "fake", "effect": "NoSchedule"}
"""Keeps out pods that have something to run."""
TOLERATION = {"key": _ANNOTATION, "operator": "Exists", "effect": "NoSchedule"}


def fake_node(
    name: str,
    resources: Mapping[str, str],
    labels: Mapping[str, str] | None = None,
    *,
    cpu: str = "64",
    memory: str = "512Gi",
    tainted: bool = True,
) -> dict[str, Any]:
    """A node to apply.

    Args:
        name: its name.
        resources: extended resources that it has, such as `{"nvidia.com/gpu": "8"}`.
        labels: as a node feature discovery would set, such as `nvidia.com/gpu.product`.
        cpu: how many CPUs it has.
        memory: and how much memory.
        tainted: whether only pods with `TOLERATION` go there.
    """
    capacity = {"cpu": cpu, "memory": memory, "pods": "110", "ephemeral-storage": "1Ti", **resources}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
            | dict(labels or {}),
            "annotations": {_ANNOTATION: "fake"},
        },
        "spec": {"taints": [TAINT] if tainted else []},
        "status": {"allocatable": capacity, "capacity": capacity},
    }


@contextmanager
def kwok(kubeconfig: Path, folder: Path, report: Report = say) -> Iterator[None]:
    """Keep the fake nodes of a cluster Ready, and run their pods in name, until the block ends.

    Args:
        kubeconfig: of an administrator.
        folder: for its log.
        report: shows progress while it is built.
    """
    with (folder / "kwok.log").open("ab") as log:
        process = subprocess.Popen(
            [
                "setpriv", "--pdeathsig", "KILL", str(tool("kwok", report)), "--kubeconfig", str(kubeconfig),
                f"--manage-nodes-with-annotation-selector={_ANNOTATION}=fake", "--node-lease-duration-seconds=40",
                "--config", str(_stages(report)),
            ],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _stages(report: Report) -> Path:
    """How fake nodes and pods come to life and go: kwok's own stages, copied where they are not in the cache yet."""
    path = cache_directory() / "kwok-stages-v0.8.0.yaml"
    if not path.exists():
        source = module_folder(PROGRAMS["kwok"], "sigs.k8s.io/kwok") / "kustomize" / "stage"
        report("taking kwok's stages from its module")
        files = [file for folder in _STAGES for file in sorted((source / folder).glob("*-*.yaml"))]
        partial = path.with_suffix(".partial")
        partial.write_text("\n---\n".join(file.read_text() for file in files))
        partial.rename(path)
    return path
