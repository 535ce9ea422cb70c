"""The commands, against a real embedded store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from tests.telling import Telling, assert_tells
from typer.testing import CliRunner, Result

from penstock.errors import Invalid, PenstockError, Unavailable
from penstock_cli.main import app
from penstock_cli.objects.resources import age, find_kind
from penstock_cli.standalone.state import StateFolder
from penstock_cli.target import ClusterTarget, open_embedded

SAMPLES = Path(__file__).resolve().parents[3] / "manifests" / "samples"
Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command with a state folder of its own, in which a store is."""
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    open_embedded(StateFolder(tmp_path)).close()

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin)

    return invoke


def refusal(result: Result) -> PenstockError:
    assert isinstance(result.exception, PenstockError), result.output
    return result.exception


def test_apply_tells_what_it_did(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "digits.yaml"
    file.write_text((SAMPLES / "digits.yaml").read_text())
    assert cli("apply", "-f", str(file)).output == "inferencedeployment/digits created\n"
    assert cli("apply", "-f", str(file)).output == "inferencedeployment/digits unchanged\n"
    file.write_text(file.read_text().replace("maxReplicas: 2", "maxReplicas: 3"))
    assert cli("apply", "-f", str(file)).output == "inferencedeployment/digits configured\n"


def test_apply_reads_standard_input_and_folders(cli: Cli) -> None:
    assert "servingpool/default created" in cli("apply", "-f", "-", stdin=(SAMPLES / "pool.yaml").read_text()).output
    assert "inferencedeployment/digits created" in cli("apply", "-f", str(SAMPLES)).output


def test_nothing_is_applied_when_one_is_wrong(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "both.yaml"
    file.write_text((SAMPLES / "pool.yaml").read_text() + "---\n" + (SAMPLES / "digits.yaml").read_text() + "  x: 1\n")
    error = refusal(cli("apply", "-f", str(file)))
    assert f"{file}:" in error.message
    assert cli("get", "spool").stdout == ""


def test_get_shows_the_columns_of_kubectl(cli: Cli) -> None:
    cli("apply", "-f", str(SAMPLES))
    heading, row, _ = cli("get").stdout.splitlines()
    assert heading.split() == ["NAME", "READY", "MODEL", "REPLICAS", "URL", "AGE"]
    assert row.startswith("digits ")
    assert "file:///var/lib/penstock/models/digits/1" in row
    assert "POOL" in cli("get", "-o", "wide").stdout.splitlines()[0]
    assert cli("get", "-A").stdout.splitlines()[0].startswith("NAMESPACE")


@pytest.mark.parametrize(
    ("output", "parse"),
    [pytest.param("yaml", yaml.safe_load, id="as YAML"), pytest.param("json", json.loads, id="as JSON")],
)
def test_get_writes_the_object(cli: Cli, output: str, parse: Callable[[str], dict[str, dict[str, str]]]) -> None:
    cli("apply", "-f", str(SAMPLES))
    assert parse(cli("get", "infdep", "digits", "-o", output).stdout)["metadata"]["name"] == "digits"
    listed = parse(cli("get", "infdep", "-o", output).stdout)
    assert (listed["kind"], len(listed["items"])) == ("List", 2)


def test_get_does_not_write_secrets_out(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "secret.yaml"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"token": "hunter2"}}
    file.write_text(yaml.safe_dump(secret))
    assert cli("apply", "-f", str(file)).output == "secret/s created\n"
    shown = cli("get", "secret", "s", "-o", "yaml").stdout
    assert "hunter2" not in shown
    assert "(not shown)" in shown


def test_delete_by_name_and_by_file(cli: Cli) -> None:
    cli("apply", "-f", str(SAMPLES))
    assert cli("delete", "infdep", "digits").output == "inferencedeployment/digits deleted\n"
    assert "not found" in refusal(cli("delete", "infdep", "digits")).message
    assert cli("delete", "-f", str(SAMPLES / "pool.yaml")).output == "servingpool/default deleted\n"


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        pytest.param(["apply"], "penstock apply -f FILE", id="apply without a file"),
        pytest.param(["delete"], "penstock delete KIND NAME", id="delete without anything"),
        pytest.param(["delete", "infdep"], "penstock delete KIND NAME", id="delete of a whole kind"),
        pytest.param(["get", "turbine"], "'turbine' InferenceDeployment", id="a kind that is not there"),
        pytest.param(["get", "infdep", "nope"], "'nope' not found default", id="an object that is not there"),
        pytest.param(["apply", "-f", "/nowhere.yaml"], "/nowhere.yaml no such file", id="a file that is not there"),
        pytest.param(["trace"], "no traces", id="no traces yet"),
    ],
)
def test_refusals_say_what_to_do(cli: Cli, arguments: list[str], facts: str) -> None:
    assert_tells(refusal(cli(*arguments)).message, facts)


def test_without_cluster_and_store_it_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path / "none"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    error = refusal(CliRunner().invoke(app, ["get"]))
    assert isinstance(error, Unavailable)
    assert "penstock run" in error.message


@pytest.mark.parametrize(
    ("target", "environment", "cluster"),
    [
        pytest.param(ClusterTarget(), None, False, id="nothing named is standalone"),
        pytest.param(ClusterTarget(kubeconfig=Path("k")), None, True, id="a kubeconfig is a cluster"),
        pytest.param(ClusterTarget(context="c"), None, True, id="a context is a cluster"),
        pytest.param(ClusterTarget(), "/k", True, id="KUBECONFIG is a cluster"),
        pytest.param(ClusterTarget(state=StateFolder(Path("s"))), "/k", False, id="a state folder beats KUBECONFIG"),
    ],
)
def test_which_api_is_meant(
    target: ClusterTarget,
    environment: str | None,
    cluster: bool,  # noqa: FBT001 (a table)
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    if environment is not None:
        monkeypatch.setenv("KUBECONFIG", environment)
    assert target.is_cluster is cluster


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param("infdep", "InferenceDeployment", id="a short name"),
        pytest.param("InferenceDeployments", "InferenceDeployment", id="a plural in any case"),
        pytest.param("servingpool.penstock.dev", "ServingPool", id="a kind with its group"),
        pytest.param("secret", "Secret", id="a core kind"),
    ],
)
def test_kinds_by_name(name: str, kind: str) -> None:
    assert find_kind(name).kind == kind


@pytest.mark.parametrize(
    ("then", "text"),
    [
        pytest.param("2026-01-01T00:00:00Z", "0s", id="now"),
        pytest.param("2025-12-31T23:59:00Z", "60s", id="a minute"),
        pytest.param("2025-12-31T23:50:00Z", "10m", id="minutes"),
        pytest.param("2025-12-31T12:00:00Z", "12h", id="hours"),
        pytest.param("2025-12-25T00:00:00Z", "7d", id="days"),
        pytest.param("2026-01-02T00:00:00Z", "0s", id="a clock that is ahead"),
        pytest.param("yesterday", "<unknown>", id="no time"),
    ],
)
def test_ages(then: str, text: str) -> None:
    assert age(then, datetime(2026, 1, 1, tzinfo=UTC)) == text


def test_validate_names_file_line_and_field(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text((SAMPLES / "digits.yaml").read_text().replace("minReplicas: 1", "minReplicas: 5"))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "minReplicas:" in text)
    result = cli("validate", str(file))
    assert result.exit_code == 1
    assert result.output.startswith(f"{file}:{line}: spec.scaling.minReplicas: ")


def test_validate_accepts_the_samples(cli: Cli) -> None:
    result = cli("validate", str(SAMPLES))
    assert (result.exit_code, result.output) == (0, Telling("4 of 4 checked accept"))


def test_version_as_json(cli: Cli) -> None:
    found = json.loads(cli("version", "-o", "json").output)
    assert {"penstock", "python", "ray", "onnxruntime", "platform"} <= set(found)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv=['penstock','--help']\n"
        "from penstock_cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('ray','torch','kubernetes','onnxruntime','celpy','numpy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        pytest.param("penstock", "Usage: penstock ", id="as itself"),
        pytest.param("kubectl-penstock", "Usage: kubectl penstock ", id="as a kubectl plugin"),
    ],
)
def test_it_is_called_by_its_name(name: str, usage: str) -> None:
    program = f"import sys; sys.argv=['/usr/bin/{name}','--help']; from penstock_cli.main import main; main()"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert usage in run.stdout


def test_help_names_what_to_give(cli: Cli) -> None:
    assert "apply [OPTIONS] [-f FILE]..." in cli("apply", "--help").output


def test_an_error_is_one_message_without_a_trace(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.argv=['penstock','get','--state-dir',{str(tmp_path)!r}]\n"
        "from penstock_cli.main import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 1
    assert run.stderr.startswith("error: ")
    assert_tells(run.stderr, "penstock run")
    assert "Traceback" not in run.stderr


def test_invalid_is_a_deliberate_error() -> None:
    with pytest.raises(Invalid, match="UnknownKind"):
        find_kind("x")
