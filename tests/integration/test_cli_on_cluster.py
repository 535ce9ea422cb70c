"""The same commands against a real API server, as `kubectl penstock`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cluster.controlplane import ControlPlane
from typer.testing import CliRunner

from penstock.errors import PenstockError
from penstock_cli.main import app

pytestmark = pytest.mark.apiserver
SAMPLES = Path(__file__).resolve().parents[2] / "manifests" / "samples"


def test_apply_get_and_delete(crds: ControlPlane, namespace: str, tmp_path: Path) -> None:
    file = tmp_path / "digits.yaml"
    file.write_text((SAMPLES / "digits.yaml").read_text().replace("  namespace: default\n", ""))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "-n", namespace, "--kubeconfig", str(crds.kubeconfig)])
        if isinstance(result.exception, PenstockError):
            raise result.exception
        return result.output

    assert run("apply", "-f", str(file)) == "inferencedeployment/digits created\n"
    assert run("apply", "-f", str(file)) == "inferencedeployment/digits unchanged\n"
    assert run("get").splitlines()[1].startswith("digits ")
    assert crds.kubectl("-n", namespace, "get", "infdep", "-o", "name").stdout.strip().endswith("/digits")
    assert run("delete", "infdep", "digits") == "inferencedeployment/digits deleted\n"
    with pytest.raises(PenstockError, match="not found"):
        run("get", "infdep", "digits")
