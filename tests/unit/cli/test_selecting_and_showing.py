"""What `get` and `delete` are about and show, against a real embedded store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.telling import assert_tells, telling
from typer.testing import CliRunner, Result

from penstock.api.kinds import KINDS
from penstock.api.meta import Manifest
from penstock.errors import Invalid, PenstockError
from penstock_cli.main import app
from penstock_cli.objects.resources import find_kind
from penstock_cli.objects.selection import Selection, parse_selection
from penstock_cli.standalone.state import StateFolder, StateLock
from penstock_cli.target import open_embedded
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.runtime.cluster import EVENT, Key

SAMPLES = Path(__file__).resolve().parents[3] / "manifests" / "samples"
Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command on a store in which the samples are."""
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    StateFolder(tmp_path / "state").create()
    open_embedded(StateFolder(tmp_path / "state")).close()

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin)

    assert invoke("apply", "-f", str(SAMPLES)).exit_code == 0
    return invoke


def refusal(result: Result) -> str:
    assert isinstance(result.exception, PenstockError), result.output
    return result.exception.message


def two_deployments(cli: Cli) -> None:
    text = (SAMPLES / "digits.yaml").read_text().replace("name: digits", "name: letters")
    assert "letters created" in cli("apply", "-f", "-", stdin=text).output


@pytest.mark.parametrize(
    ("words", "selections"),
    [
        pytest.param(["infdep"], [Selection(INFERENCE_DEPLOYMENT)], id="a kind is all of it"),
        pytest.param(["infdep", "a", "b"], [Selection(INFERENCE_DEPLOYMENT, ("a", "b"))], id="names after a kind"),
        pytest.param(["infdep/a"], [Selection(INFERENCE_DEPLOYMENT, ("a",))], id="a kind and a name in one word"),
        pytest.param(
            ["infdep/a", "spool/p", "infdep/b"],
            [Selection(INFERENCE_DEPLOYMENT, ("a", "b")), Selection(SERVING_POOL, ("p",))],
            id="words of two kinds",
        ),
        pytest.param(["all"], [Selection(find_kind(name)) for name in KINDS], id="all are our kinds"),
        pytest.param(
            ["spool,infdep"], [Selection(SERVING_POOL), Selection(INFERENCE_DEPLOYMENT)], id="kinds with a comma"
        ),
    ],
)
def test_words_select(words: list[str], selections: list[Selection]) -> None:
    assert parse_selection(words) == selections


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        pytest.param(["infdep/a", "b"], "'b' KIND/NAME", id="both forms"),
        pytest.param(["infdep/"], "'infdep/' KIND/NAME", id="no name after the slash"),
        pytest.param(["turbine/a"], "'turbine' InferenceDeployment", id="an unknown kind"),
        pytest.param(["all", "a"], "all name one kind", id="a name of all"),
    ],
)
def test_words_that_select_nothing_are_refused(words: list[str], facts: str) -> None:
    with pytest.raises(Invalid, match=telling(facts)):
        parse_selection(words)


def test_get_all_has_a_table_for_each_kind(cli: Cli) -> None:
    lines = cli("get", "all").stdout.splitlines()
    assert [line.split()[0] if line else "" for line in lines] == [
        "NAME", "inferencedeployment/digits", "inferencedeployment/judged", "", "NAME", "servingpool/default", "servingpool/gpus",
    ]  # fmt: skip


def test_get_shows_what_is_there_and_names_what_is_not(cli: Cli) -> None:
    result = cli("get", "infdep", "digits", "nope")
    assert result.stdout.splitlines()[1].startswith("digits ")
    assert_tells(refusal(result), "inferencedeployments 'nope' not found default")
    assert yaml.safe_load(cli("get", "infdep/digits", "-o", "yaml").stdout)["metadata"]["name"] == "digits"


def test_delete_takes_several_names_and_both_forms(cli: Cli) -> None:
    two_deployments(cli)
    assert cli("delete", "infdep", "digits", "letters").output == (
        "inferencedeployment/digits deleted\ninferencedeployment/letters deleted\n"
    )
    result = cli("delete", "infdep/digits", "spool/default")
    assert result.stdout == "servingpool/default deleted\n"
    assert_tells(refusal(result), "'digits' not found")
    assert "KIND NAME" in refusal(cli("delete", "all"))


def test_delete_of_a_file_with_a_misspelt_kind_names_those_known(cli: Cli) -> None:
    text = (SAMPLES / "digits.yaml").read_text().replace("kind: InferenceDeployment", "kind: InferenceDeploymnt")
    said = refusal(cli("delete", "-f", "-", stdin=text))
    assert said.startswith("stdin:")
    assert_tells(said, '"InferenceDeploymnt" known: InferenceDeployment ServingPool')


@pytest.mark.parametrize("output", ["table", "yaml", "json"])
def test_get_says_when_nothing_runs(cli: Cli, tmp_path: Path, output: str) -> None:
    idle = cli("get", "infdep", "-o", output)
    assert_tells(idle.stderr, "no `penstock run`")
    assert "penstock run" not in idle.stdout
    with StateLock(StateFolder(tmp_path / "state")):
        assert cli("get", "infdep", "-o", output).stderr == ""


def test_applied_objects_have_their_defaults(cli: Cli) -> None:
    spec = yaml.safe_load(cli("get", "infdep/digits", "-o", "yaml").stdout)["spec"]
    assert spec["poolRef"] == {"name": "default"}
    assert cli("get", "-o", "wide").stdout.splitlines()[1].split()[-2:] == ["default", "quick"]
    assert cli("apply", "-f", str(SAMPLES / "digits.yaml")).output == "inferencedeployment/digits unchanged\n"


def test_a_field_that_is_left_out_goes_back_to_its_default(cli: Cli) -> None:
    manifest: Manifest = yaml.safe_load((SAMPLES / "digits.yaml").read_text())
    model = manifest["spec"]["model"]
    bare = {**manifest, "spec": {"model": model}}
    full = {**manifest, "spec": {"model": model, "scaling": {"maxReplicas": 7}, "slo": {"latencyP99Milliseconds": 50},
                                 "resources": {"accelerator": {"type": "nvidia-l4"}}}}  # fmt: skip

    def applied(wanted: Manifest) -> Manifest:
        result = cli("apply", "-f", "-", stdin=yaml.safe_dump(wanted))
        assert result.exit_code == 0, result.exception
        found: Manifest = yaml.safe_load(cli("get", "infdep/digits", "-o", "yaml").stdout)
        return found

    first, changed, again = applied(bare), applied(full), applied(bare)

    assert changed["spec"]["scaling"] == first["spec"]["scaling"] | {"maxReplicas": 7}
    assert changed["spec"]["resources"]["accelerator"]["type"] == "nvidia-l4"
    assert again["spec"] == first["spec"]


def test_a_default_does_not_outlive_the_map_that_it_is_in(cli: Cli) -> None:
    pool: Manifest = yaml.safe_load((SAMPLES / "pool.yaml").read_text())
    existing = {"address": "http://127.0.0.1:8265"}
    bare = {**pool, "spec": {"existing": existing}}
    guarded = {**pool, "spec": {"existing": existing | {"tokenSecretRef": {"name": "ray-token"}}}}

    def applied(wanted: Manifest) -> Manifest:
        result = cli("apply", "-f", "-", stdin=yaml.safe_dump(wanted))
        assert result.exit_code == 0, result.exception
        found: Manifest = yaml.safe_load(cli("get", "spool/default", "-o", "yaml").stdout)["spec"]["existing"]
        return found

    assert applied(guarded)["tokenSecretRef"] == {"name": "ray-token", "key": "token"}
    assert "tokenSecretRef" not in applied(bare)


def test_a_status_is_no_new_generation(cli: Cli, tmp_path: Path) -> None:
    before = yaml.safe_load(cli("get", "infdep/digits", "-o", "yaml").stdout)
    cluster = open_embedded(StateFolder(tmp_path / "state"))
    after = cluster.apply_status(INFERENCE_DEPLOYMENT, before | {"status": {"url": "http://x"}}, "operator")
    cluster.close()
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["spec"] == before["spec"]


def test_events_are_in_the_order_of_time_and_on_one_line(cli: Cli, tmp_path: Path) -> None:
    cluster = open_embedded(StateFolder(tmp_path / "state"))
    for name, second, note in (("a", 9, "third"), ("b", 3, "first\n  in two lines"), ("c", 5, "second")):
        event = {
            "metadata": {"name": name, "namespace": "default"},
            "eventTime": f"2026-01-01T00:00:0{second}.000000Z",
            "type": "Normal",
            "reason": "Said",
            "regarding": {"kind": "InferenceDeployment", "name": "digits"},
            "note": note,
        }
        cluster.apply(EVENT, event, "operator")
    cluster.close()

    heading, *rows = cli("get", "events").stdout.splitlines()

    assert heading.split() == ["LAST", "SEEN", "TYPE", "REASON", "KIND", "OBJECT", "MESSAGE"]
    assert [row.split("digits")[1].strip() for row in rows] == ["first in two lines", "second", "third"]


def test_describe_tells_the_conditions_and_what_happened_to_this_object(cli: Cli, tmp_path: Path) -> None:
    cluster = open_embedded(StateFolder(tmp_path / "state"))
    digits = cluster.get(INFERENCE_DEPLOYMENT, Key("default", "digits"))
    assert digits is not None
    told = {"type": "Ready", "status": "False", "reason": "ModelNotFound", "message": "there is\nnothing"}
    status = {"conditions": [told | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    cluster.apply_status(INFERENCE_DEPLOYMENT, digits | {"status": status}, "operator")
    about = {
        "its-own": {"name": "digits", "uid": digits["metadata"]["uid"]},
        "of-a-former-one": {"name": "digits", "uid": "another"},
        "of-another": {"name": "judged"},
    }
    for name, regarding in about.items():
        event = {
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Warning", "reason": "ModelNotFound", "note": name,
            "regarding": {"kind": "InferenceDeployment", "namespace": "default", **regarding},
        }  # fmt: skip
        cluster.apply(EVENT, event, "operator")
    cluster.close()

    found = cli("describe", "infdep", "digits", "absent")

    assert_tells(found.stdout, "digits", "default", "Ready False ModelNotFound", "Warning its-own")
    assert "there is nothing" in found.stdout
    assert "of-a" not in found.stdout
    assert_tells(refusal(found), "'absent' not found default")


PROFILES = SAMPLES.parent / "profiles"


def test_profiles_of_the_cluster_are_applied_shown_and_deleted(cli: Cli) -> None:
    applied = cli("apply", "-f", str(PROFILES), "-n", "default")
    assert "clusteroptimizationprofile/balanced created" in applied.output

    table = cli("get", "coptprof", "-n", "elsewhere").stdout.splitlines()
    assert table[0].split() == ["NAME", "OBJECTIVE", "STRATEGY", "MINUTES", "MINIMUM", "AGE"]
    assert [line.split()[0] for line in table[1:]] == [
        "balanced", "edge", "latency", "none", "quick", "small", "throughput",
    ]  # fmt: skip
    assert "ONNXRuntime,OpenVINO" in cli("get", "coptprof", "balanced", "-o", "wide").output

    assert cli("delete", "coptprof/balanced").output == "clusteroptimizationprofile/balanced deleted\n"
    assert cli("delete", "-f", str(PROFILES / "edge.yaml")).exit_code == 0
    assert_tells(refusal(cli("get", "coptprof", "edge")), "'edge' not found cluster")


def test_a_namespace_written_into_a_profile_of_the_cluster_is_left_out(cli: Cli) -> None:
    text = (PROFILES / "none.yaml").read_text().replace("  name: none", "  name: none\n  namespace: vision")
    assert cli("apply", "-f", "-", stdin=text).exit_code == 0
    shown = yaml.safe_load(cli("get", "coptprof", "none", "-o", "yaml").stdout)
    assert "namespace" not in shown["metadata"]


def test_a_profile_that_is_there_cannot_be_changed(cli: Cli) -> None:
    cli("apply", "-f", str(PROFILES / "none.yaml"))
    text = (PROFILES / "none.yaml").read_text().replace("budgetMinutes: 5", "budgetMinutes: 6")
    assert_tells(refusal(cli("apply", "-f", "-", stdin=text)), "spec: Forbidden new name optimizationProfileRef")
