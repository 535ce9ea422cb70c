"""`penstock run` with several models: what is refused before anything starts, and what serves where one cannot."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from tests.telling import assert_tells
from typer.testing import CliRunner

from penstock.api.documents import load_documents
from penstock.api.meta import Manifest
from penstock.errors import Invalid, Unavailable
from penstock.names import DEPLOYMENT_MANAGER
from penstock_cli.main import app
from penstock_cli.objects.resources import kind_of
from penstock_cli.progress import StepDisplay
from penstock_cli.serving import ServedModels
from penstock_cli.standalone.state import StateFolder
from penstock_cli.target import open_embedded
from penstock_cli.validation.manifests import refuse
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.runtime.cluster import Cluster, Key

NAMES = [f"model-{index}" for index in range(7)]


def deployment(name: str, **metadata: object) -> Manifest:
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": name, **metadata},
        "spec": {"model": {"storageUri": "file:///m", "modelFormat": "onnx"}},
    }


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = open_embedded(StateFolder(tmp_path))
    yield made
    made.close()


def say(cluster: Cluster, name: str, status: str, reason: str) -> None:
    """As the operator says it."""
    condition = {
        "type": "Ready", "status": status, "reason": reason, "message": f"it is {reason}", "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    told = {"conditions": [condition], "url": f"http://gateway/default/v2/models/{name}"}
    about = {"name": name, "namespace": "default"}
    cluster.apply_status(INFERENCE_DEPLOYMENT, {"metadata": about, "status": told}, DEPLOYMENT_MANAGER)


def models_of(cluster: Cluster, output: io.StringIO) -> ServedModels:
    return ServedModels(cluster, StepDisplay(Console(file=output, width=200)), lambda: None)


def test_of_seven_models_of_which_one_cannot_start_six_serve_and_the_seventh_is_said(cluster: Cluster) -> None:
    output = io.StringIO()
    models = models_of(cluster, output)
    models.apply(map(deployment, NAMES))
    for name in NAMES:
        say(cluster, name, *(("False", "ModelNotFound") if name == "model-2" else ("True", "Ready")))
    models.wait()
    models.tell()
    said = output.getvalue()
    assert [key.name for key in models.serving] == [name for name in NAMES if name != "model-2"]
    assert said.count("Serving http://gateway/default/v2/models/model-") == 6
    assert "✗ default/model-2 " in said
    assert_tells(said, "default/model-2 ModelNotFound: it is ModelNotFound", "6 of 7")
    models.look()
    assert list(models.failed) == [Key("default", "model-2")]
    say(cluster, "model-2", "True", "Ready")
    models.look()
    assert not models.failed
    assert_tells(output.getvalue().removeprefix(said), "default/model-2 Ready http://gateway/default/v2/models/model-2")


def test_models_that_start_for_ever_are_waited_for_together(cluster: Cluster) -> None:
    models = models_of(cluster, io.StringIO())
    models.seconds = 0.1
    models.apply(map(deployment, NAMES[:2]))
    models.wait()
    assert [error.reason for error in models.failed.values()] == ["NotReady", "NotReady"]


def test_a_model_that_is_deleted_meanwhile_does_not_end_the_others(cluster: Cluster) -> None:
    models = models_of(cluster, io.StringIO())
    models.apply(map(deployment, NAMES[:2]))
    cluster.delete(INFERENCE_DEPLOYMENT, Key("default", NAMES[0]))
    say(cluster, NAMES[1], "True", "Ready")
    models.wait()
    assert (list(models.failed), list(models.serving)) == ([Key("default", NAMES[0])], [Key("default", NAMES[1])])


def test_a_platform_that_fails_ends_the_wait(cluster: Cluster) -> None:
    def check() -> None:
        raise Unavailable("Ended", "the operator has ended")

    models = ServedModels(cluster, StepDisplay(Console(file=io.StringIO())), check)
    models.apply([deployment("one")])
    with pytest.raises(Unavailable, match="the operator has ended"):
        models.wait()


REFUSED = [
    pytest.param(deployment("a", namespace="vision"), "namespace", 'namespaces "vision"', id="a missing namespace"),
    pytest.param(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}},
        "kind",
        "Service known",
        id="an unknown kind",
    ),
    pytest.param(
        {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "ServingPool",
            "metadata": {"name": "there"},
            "spec": {"existing": {"address": "http://other:8265"}},
        },
        "address",
        "spec.existing.address Forbidden ServingPool",
        id="a change that is not allowed",
    ),
]


@pytest.mark.parametrize(("manifest", "field", "facts"), REFUSED)
def test_what_the_store_would_refuse_is_refused_with_file_and_line(
    cluster: Cluster, manifest: Manifest, field: str, facts: str
) -> None:
    there = {
        "metadata": {"name": "there", "namespace": "default"},
        "spec": {"existing": {"address": "http://ray:8265"}},
    }
    cluster.apply(SERVING_POOL, {"apiVersion": "penstock.dev/v1alpha1", "kind": "ServingPool", **there}, "test")
    text = "---\n".join(yaml.safe_dump(each, sort_keys=False) for each in (*map(deployment, NAMES), manifest))
    line = max(number for number, each in enumerate(text.splitlines(), 1) if f"{field}:" in each)
    with pytest.raises(Invalid) as caught:
        refuse(cluster, load_documents(text, "models.yaml"))
    assert_tells(caught.value.message, facts)
    assert caught.value.message.startswith(f"models.yaml:{line}: ")


def test_a_namespace_that_the_files_bring_and_a_pool_that_is_replaced_are_taken(cluster: Cluster) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "vision"}}
    text = yaml.safe_dump_all([namespace, deployment("a", namespace="vision")])
    refuse(cluster, load_documents(text, "models.yaml"))
    assert kind_of(namespace).kind == "Namespace"


def test_one_refused_document_among_seven_starts_nothing(tmp_path: Path) -> None:
    bad = deployment("model-3", labels={"version": 2})
    file, state = tmp_path / "models.yaml", tmp_path / "state"
    file.write_text("---\n".join(yaml.safe_dump(each, sort_keys=False) for each in (*map(deployment, NAMES[:3]), bad)))
    result = CliRunner().invoke(app, ["run", "--state-dir", str(state), str(file)])
    assert isinstance(result.exception, Invalid)
    line = file.read_text().splitlines().index("    version: 2") + 1
    assert f"{file}:{line}: metadata.labels.version: " in result.exception.message
    assert_tells(result.exception.message, 'write "2" quotes')
    assert not state.exists()


def test_of_what_is_applied_nothing_is_where_one_change_would_be_refused(cluster: Cluster, tmp_path: Path) -> None:
    there = {
        "metadata": {"name": "there", "namespace": "default"},
        "spec": {"existing": {"address": "http://ray:8265"}},
    }
    pool = {"apiVersion": "penstock.dev/v1alpha1", "kind": "ServingPool", **there}
    cluster.apply(SERVING_POOL, pool, "test")
    file = tmp_path / "both.yaml"
    changed = {**pool, "spec": {"existing": {"address": "http://other:8265"}}}
    file.write_text("---\n".join(yaml.safe_dump(each, sort_keys=False) for each in (deployment("one"), changed)))
    result = CliRunner().invoke(app, ["apply", "-f", str(file), "--state-dir", str(tmp_path)])
    assert isinstance(result.exception, Invalid)
    assert result.exception.message.startswith(f"{file}:")
    assert_tells(result.exception.message, "spec.existing.address Forbidden ServingPool")
    assert cluster.get(INFERENCE_DEPLOYMENT, Key("default", "one")) is None
