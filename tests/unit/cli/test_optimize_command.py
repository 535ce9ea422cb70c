"""`penstock optimize`: from what is typed to a request, and from a result to what is shown."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from tests.telling import telling
from tests.unit.report.reports import report

from penstock.errors import Invalid
from penstock.optimization.progress import OptimizationRequest, Progress, RunResult
from penstock.optimization.report import SearchVerdict
from penstock.optimization.trials import Stage
from penstock.serving.manifest import Capacity, ModelFormat
from penstock_cli.optimization.following import Display, comparison_table, outcome_table, plain_line, serving_manifest
from penstock_cli.optimization.request import OptimizeSettings, build_request, load_profile
from penstock_cli.standalone.state import StateFolder
from penstock_cli.validation.admission import validate_text

PROFILE = """\
apiVersion: penstock.dev/v1alpha1
kind: OptimizationProfile
metadata: {name: mine, namespace: default}
spec:
  engines: [OpenVINO]
  steps: {distil: {}}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "My Model_v2.onnx"
    path.write_bytes(b"not looked at")
    return path


def request(model: Path, tmp_path: Path, **changes: object) -> OptimizationRequest:
    return build_request(OptimizeSettings(model=str(model), **changes), StateFolder(tmp_path / "state"))  # type: ignore[arg-type]  # a table's fields


def test_a_request_by_default_is_balanced_and_signed_with_the_users_own_key(model: Path, tmp_path: Path) -> None:
    found = request(model, tmp_path)
    assert found.profile == "ClusterOptimizationProfile/balanced"
    assert found.name == "my-model-v2"
    assert found.store == (tmp_path / "state" / "artifacts").as_uri()
    assert Path(found.signing_key).stat().st_mode & 0o777 == 0o600
    assert request(model, tmp_path).signing_key == found.signing_key


def test_a_profile_in_a_file(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(PROFILE)
    found = request(model, tmp_path, profile=str(tmp_path / "mine.yaml"), student_import_path="students:small")
    assert found.profile == "OptimizationProfile/mine"
    assert found.spec.steps.distil is not None
    assert found.spec.steps.distil.student_import_path == "students:small"
    assert found.model.student_import_path == "students:small"


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        pytest.param({"profile": "blanced"}, "blanced shipped balanced edge latency", id="an unknown profile"),
        pytest.param({"data": "/nowhere/data"}, "no data /nowhere/data", id="data that is not there"),
        pytest.param({"shapes": ("x",)}, "write NAME=LENGTH", id="a shape without a length"),
    ],
)
def test_what_is_wrong_is_said_at_once(model: Path, tmp_path: Path, changes: dict[str, object], facts: str) -> None:
    with pytest.raises(Invalid, match=telling(facts)):
        request(model, tmp_path, **changes)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=telling("no model", str(tmp_path / "missing.onnx"))):
        request(tmp_path / "missing.onnx", tmp_path)


def test_a_file_without_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(PROFILE.replace("OptimizationProfile", "Unknown"))
    with pytest.raises(Invalid):
        load_profile(str(path))


def test_remote_models_are_left_to_the_optimizer(tmp_path: Path) -> None:
    found = build_request(OptimizeSettings(model="s3://models/bert/1"), StateFolder(tmp_path / "state"))
    assert (found.model_uri, found.model.path, found.name) == ("s3://models/bert/1", "", "1")


def _result(artifact: str | None) -> RunResult:
    return RunResult(
        verdict=SearchVerdict.ACCEPTED if artifact else SearchVerdict.REJECTED,
        summary="…",
        artifact_uri=artifact,
        artifact_digest="sha256:" + "1" * 64,
        artifact_format=ModelFormat.OPENVINO,
        capacity=Capacity(
            curve=(), max_batch_size=8, max_delay_milliseconds=2, requests_per_second=10, target_in_flight_requests=16
        ),
    )


def test_the_manifest_that_serves_it_is_one_that_the_api_server_takes(model: Path, tmp_path: Path) -> None:
    text = serving_manifest(request(model, tmp_path, threads=2), _result("file:///store/artifacts/sha256-1"))
    assert text is not None
    assert not validate_text(text, "written.yaml").problems
    written = yaml.safe_load(text)["spec"]
    assert written["batching"] == {"maxBatchSize": 8, "maxDelayMilliseconds": 2}
    assert written["model"]["modelFormat"] == "openvino"


def test_where_nothing_was_chosen_nothing_is_to_be_served(model: Path, tmp_path: Path) -> None:
    assert serving_manifest(request(model, tmp_path), _result(None)) is None


def _printed(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_before_and_after_names_both_baselines_and_the_reports_own_ratios() -> None:
    found = report()
    text = _printed(comparison_table(found))
    chosen = found.candidate(found.chosen)
    assert chosen is not None
    assert "against TorchEager" in text
    assert "against ONNXRuntime" in text
    for ratio in chosen.speedups.values():
        assert f"{ratio.value:.2f}x" in text


def test_every_candidate_has_its_reason() -> None:
    found = report()
    text = " ".join(_printed(outcome_table(found)).replace("│", " ").split())
    for each in found.candidates:
        if each.outcome != "Baseline":
            assert each.reason.split(":")[0] in text


PROGRESS = Progress(
    stage=Stage.BUILD, message="Building it", done=3, total=9, elapsed_seconds=61.0, best="other", best_speedup=2.5
)


def test_a_line_for_logs() -> None:
    assert plain_line(PROGRESS) == "1:01 Build 3/9: Building it (best: 2.50x)"


@pytest.mark.parametrize("terminal", [True, False], ids=["on a terminal", "in a log"])
def test_progress_is_shown(terminal: bool) -> None:  # noqa: FBT001 (a table)
    console = Console(file=io.StringIO(), width=120, force_terminal=terminal)
    with Display(console) as display:
        display(PROGRESS)
        display(PROGRESS.model_copy(update={"message": "Building another"}))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "Building it" in text
    assert "Building another" in text
