"""A real search of a small model that is killed on its way."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest
from tests.integration.search.searched import Searched, kept, search_with_kills, start, statement_in
from tests.telling import telling

from penstock.errors import Unavailable
from penstock.optimization.progress import PROGRESS_FILE
from penstock.optimization.report import Report, SearchVerdict
from penstock.optimization.trials import TRIAL, SessionTrial, Stage
from penstock.serving.manifest import ModelManifest
from penstock_optimizer.search.driver import optimize
from penstock_optimizer.search.ledger import name_of
from penstock_optimizer.search.statistics import controls_hold
from penstock_runtime.signing import public_key, verify

# The search of all these is made in the first one's time: it is started five times, and killed or stopped in all but the last.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    found = search_with_kills(tmp_path_factory.mktemp("search"), kills=(0, 1, 4), terminated=5)
    assert found.status == 0, found.stderr
    return found


def _folder(uri: str | None) -> Path:
    assert uri is not None
    return Path(uri.removeprefix("file://"))


def test_no_finished_trial_is_lost_or_changed(searched: Searched) -> None:
    final = kept(searched.request)
    for ledger in searched.before_kills:
        assert ledger.items() <= final.items()


def test_no_trial_is_tried_twice(searched: Searched) -> None:
    names = [name_of(TRIAL.validate_json(body)) for body in kept(searched.request).values()]
    assert len(set(names)) == len(names)
    assert searched.result.trials == len(names)


def test_no_child_outlives_a_killed_search(searched: Searched) -> None:
    assert searched.left == []


def test_sigterm_asks_to_be_tried_again(searched: Searched) -> None:
    assert searched.terminated_status == 75


def test_the_verdict_is_what_the_controls_allow(searched: Searched) -> None:
    report = Report.model_validate_json((_folder(searched.result.report_uri) / "report.json").read_bytes())
    sessions = [
        each for body in kept(searched.request).values() if isinstance(each := TRIAL.validate_json(body), SessionTrial)
    ]
    quiet = controls_hold(report.controls[-2:])
    assert quiet or len(sessions) == 3
    assert searched.result.verdict == (SearchVerdict.ACCEPTED if quiet else SearchVerdict.NO_DECISION), (
        searched.result.summary
    )
    assert {each.outcome for each in report.candidates} <= {
        "Baseline",
        "Chosen",
        "Finalist",
        "Slower",
        "NoGain",
        "Undecided",
        "Infeasible",
    }


def test_what_was_accepted_is_signed_and_whole(searched: Searched) -> None:
    result = searched.result
    if result.verdict is not SearchVerdict.ACCEPTED:
        pytest.skip("the machine was too noisy for a verdict")
    folder = _folder(result.artifact_uri)
    verify(folder, [public_key(Path(searched.request.signing_key))])
    manifest = ModelManifest.model_validate_json((folder / "manifest.json").read_bytes())
    assert manifest.optimization is not None
    assert manifest.optimization.recipe.label == result.recipe
    assert (manifest.optimization.namespace, manifest.optimization.run) == ("default", "a-uid")
    assert manifest.optimization.capacity == result.capacity


def test_the_run_folder_tells_where_the_search_ended(searched: Searched) -> None:
    statement = statement_in(Path(searched.request.run_folder or "") / PROGRESS_FILE, searched.request)
    assert statement.progress is not None
    assert statement.progress.stage is Stage.PUBLISH
    assert statement.identity == searched.request.identity


def test_the_same_search_again_is_free(searched: Searched) -> None:
    before = kept(searched.request)
    stages = []
    again = optimize(searched.request, lambda progress: stages.append(progress.stage))
    assert again == searched.result.model_copy(update={"reused": True})
    assert stages == [Stage.PREPARE, Stage.PUBLISH]
    assert kept(searched.request) == before


def test_what_the_store_lost_is_put_there_again(searched: Searched) -> None:
    uri = searched.result.artifact_uri or searched.result.report_uri
    shutil.rmtree(_folder(uri))
    again = optimize(searched.request, lambda _: None)
    assert again.reused
    assert (again.artifact_uri or again.report_uri) == uri
    assert _folder(uri).is_dir()


def test_the_same_search_at_the_same_time_is_refused(searched: Searched) -> None:
    key = next(Path(searched.request.workspace).glob("searches/*")).name
    held = Path(searched.request.workspace) / "searches" / key / "lock"
    descriptor = os.open(held, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match=telling("another process search")):
            optimize(searched.request, lambda _: None)
    finally:
        os.close(descriptor)


def test_a_model_that_is_not_there_ends_with_1_and_says_so_in_the_run_folder(
    tmp_path: Path, searched: Searched
) -> None:
    model = searched.request.model.model_copy(update={"path": str(tmp_path / "missing.onnx")})
    process = start(searched.request.model_copy(update={"model": model, "run_folder": str(tmp_path / "run")}))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    told = statement_in(tmp_path / "run" / "result.json", searched.request).result
    assert told is not None
    assert "missing.onnx" in (told.error or "")
