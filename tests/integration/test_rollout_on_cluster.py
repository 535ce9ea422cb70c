"""A rollout is told by `kubectl penstock rollout` and by kubectl's annotations alike, at a real API server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.controlplane import ControlPlane
from tests.telling import assert_tells
from typer.testing import CliRunner, Result

from penstock_cli.main import app

pytestmark = pytest.mark.apiserver
SAMPLE = (Path(__file__).resolve().parents[2] / "manifests" / "samples" / "judged.yaml").read_text()
SHADOWING: dict[str, Any] = {
    "type": "Canary",
    "phase": "Shadowing",
    "candidate": "v2",
    "stable": "v1",
    "startedAt": "2026-11-30T19:55:00Z",
    "history": [{"after": 0, "phase": "Starting", "proof": {"errors": "0.1"}}],
    "worst": [{"at": "2026-11-30T19:58:00Z", "loss": "0.31"}],
    "metrics": [{"name": "parity", "samples": 12}],
}


def test_a_command_is_an_annotation_that_stays_when_the_deployment_is_applied_again(
    crds: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    file = tmp_path / "judged.yaml"
    file.write_text(SAMPLE.replace("  namespace: default\n", ""))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "-n", namespace, "--kubeconfig", str(crds.kubeconfig)])

    def kubectl(*arguments: str) -> str:
        return crds.kubectl("-n", namespace, *arguments).stdout

    def report(**rollout: Any) -> None:
        generation = json.loads(kubectl("get", "infdep", "judged", "-o", "json"))["metadata"]["generation"]
        patch = {"status": {"observedGeneration": generation, "rollout": SHADOWING | rollout}}
        kubectl("patch", "infdep/judged", "--subresource=status", "--type=merge", "-p", json.dumps(patch))

    def annotations() -> dict[str, str]:
        found = json.loads(kubectl("get", "infdep", "judged", "-o", "json"))["metadata"].get("annotations", {})
        return {name: text for name, text in found.items() if name.startswith("penstock.dev/")}

    assert run("apply", "-f", str(file)).exit_code == 0
    assert run("rollout", "pause", "judged").exit_code == 2
    report()
    assert_tells(run("rollout", "status", "judged").output, "v2 judged against v1 Shadowing parity 12")
    assert [row.split()[-1] for row in kubectl("get", "infdep", "-o", "wide").splitlines()] == ["ROLLOUT", "Shadowing"]

    assert run("rollout", "pause", "judged").exit_code == 0
    assert annotations() == {"penstock.dev/rollout": "pause v2"}
    assert run("apply", "-f", str(file)).output == "inferencedeployment/judged unchanged\n"
    assert annotations() == {"penstock.dev/rollout": "pause v2"}

    kubectl("annotate", "--overwrite", "infdep/judged", "penstock.dev/rollout=abort v2")
    report(phase="Held")
    assert run("rollout", "resume", "judged").exit_code == 0
    assert annotations() == {"penstock.dev/rollout": "resume v2"}
    report(phase="RolledBack", weight=0)
    assert run("rollout", "status", "judged", "-w").exit_code == 1
