"""The ledger on disk, the workspace's locks, and the entry point's requests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.telling import telling
from tests.unit.search.search_world import World, plan

from penstock.errors import Invalid, Unavailable
from penstock_optimizer.__main__ import read_request
from penstock_optimizer.search.ledger import Ledger, name_of
from penstock_optimizer.search.workspace import Workspace


def test_a_ledger_gives_back_what_was_kept_in_its_order(tmp_path: Path) -> None:
    trials, _ = World(plan()).search()
    ledger = Ledger(tmp_path, "key")
    for trial in trials:
        ledger.append(trial)
    again = Ledger(tmp_path, "key")
    assert again.trials == tuple(trials) == ledger.trials
    assert again.seconds == len(trials)


def test_half_a_trial_is_none(tmp_path: Path) -> None:
    trials, _ = World(plan()).search(until=3)
    ledger = Ledger(tmp_path, "key")
    ledger.append(trials[0])
    (tmp_path / ".00001-build-x.json.a1b2").write_text('{"type": "build", "rec')
    again = Ledger(tmp_path, "key")
    assert again.trials == (trials[0],)
    again.append(trials[1])
    assert Ledger(tmp_path, "key").trials == tuple(trials[:2])
    assert not list(tmp_path.glob(".*"))


def test_a_ledger_of_another_version_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "00000-build-x.json").write_text('{"type": "unheard-of"}')
    with pytest.raises(Invalid, match=telling("remove", str(tmp_path))):
        Ledger(tmp_path, "key")


def test_no_two_trials_of_a_search_have_the_same_name() -> None:
    trials, _ = World(plan()).search()
    assert len({name_of(trial) for trial in trials}) == len(trials)


def test_the_same_search_is_held_by_one_only(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.hold_search("one"):
        with pytest.raises(Unavailable, match=telling("another process search")), workspace.hold_search("one"):
            pass
        with workspace.hold_search("two") as folder:
            assert folder.ledger.is_dir()
    with workspace.hold_search("one"):
        pass


def test_what_a_killed_search_left_half_made_is_removed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.hold_search("one") as folder:
        (folder.variants / ".building-x" / "variant").mkdir(parents=True)
        folder.variant("whole").mkdir()
    with workspace.hold_search("one") as folder:
        assert [each.name for each in folder.variants.iterdir()] == ["whole"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{}", "model: Field required", id="an empty request"),
        pytest.param("nonsense", "Invalid JSON", id="no JSON"),
    ],
)
def test_a_wrong_request_says_where(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "request.json"
    file.write_text(text)
    with pytest.raises(Invalid, match=said):
        read_request([str(file)])


def test_a_request_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"missing\.json"):
        read_request([str(tmp_path / "missing.json")])
