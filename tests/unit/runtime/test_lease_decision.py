"""Who may take the lease, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import Unavailable
from penstock_operator.runtime.cluster import LEASE, NAMESPACE, Key, Manifest, ResourceKind
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.leading.lease import Action, Election, LeaseSettings, Observation, decide, observe

KEY = Key("default", "operator")


@pytest.mark.parametrize(
    ("observed", "now", "action"),
    [
        pytest.param(Observation(None, "", 0, 0), 0, Action.CREATE, id="no lease yet: create it"),
        pytest.param(Observation("1", "me", 10, 0), 5, Action.RENEW, id="mine: renew it"),
        pytest.param(Observation("1", "me", 10, 0), 500, Action.RENEW, id="mine and long unrenewed: still only mine"),
        pytest.param(
            Observation("1", "other", 10, 0), 9.9, Action.WAIT, id="another's, seen unchanged for less than its time"
        ),
        pytest.param(
            Observation("1", "other", 10, 0), 10, Action.TAKE, id="another's, seen unchanged for all its time"
        ),
        pytest.param(Observation("1", "", 10, 0), 0, Action.TAKE, id="given back: take it at once"),
    ],
)
def test_decision(observed: Observation, now: float, action: Action) -> None:
    assert decide(observed, "me", now) is action


def lease(version: str, holder: str) -> Manifest:
    return {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 10}}


def test_an_unchanged_lease_ages_from_when_it_was_first_seen() -> None:
    first = observe(lease("1", "other"), None, 100.0)
    assert first == Observation("1", "other", 10.0, 100.0)
    assert observe(lease("1", "other"), first, 105.0) == first


def test_a_renewed_lease_is_young_again() -> None:
    first = observe(lease("1", "other"), None, 100.0)
    assert observe(lease("2", "other"), first, 105.0).since == 105.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Candidate:
    """A process in an election, driven by hand."""

    def __init__(self, cluster: EmbeddedCluster, identity: str, clock: Clock) -> None:
        self.told: list[str] = []
        self.election = Election(
            cluster,
            KEY,
            identity,
            elected=lambda: self.told.append("elected"),
            lost=lambda: self.told.append("lost"),
            settings=LeaseSettings(duration=10, renew_deadline=7, retry=2.0),
            clock=clock,
        )


class Flaky(EmbeddedCluster):
    """An embedded cluster that can be made not to answer."""

    down = False

    def get(self, kind: ResourceKind, key: Key) -> Manifest | None:
        if self.down and kind is not NAMESPACE:
            raise Unavailable("Down", "no answer")
        return super().get(kind, key)

    def update(self, kind: ResourceKind, manifest: Manifest) -> Manifest:
        if self.down:
            raise Unavailable("Down", "no answer")
        return super().update(kind, manifest)


def test_one_leads_and_the_other_follows_only_after_the_lease_ran_out(tmp_path: Path) -> None:
    cluster, clock = EmbeddedCluster(tmp_path / "c"), Clock()
    first, second = Candidate(cluster, "first", clock), Candidate(cluster, "second", clock)
    first.election.attempt()
    second.election.attempt()
    assert (first.election.leading, second.election.leading) == (True, False)
    clock.now = 9.0  # the first one died at 0
    second.election.attempt()
    assert not second.election.leading
    clock.now = 10.0
    second.election.attempt()
    assert second.election.leading
    held = cluster.get(LEASE, KEY)
    assert held is not None
    assert (held["spec"]["holderIdentity"], held["spec"]["leaseTransitions"]) == ("second", 1)


def test_a_leader_that_cannot_renew_stops_before_another_may_begin(tmp_path: Path) -> None:
    cluster, clock = Flaky(tmp_path / "c"), Clock()
    first = Candidate(cluster, "first", clock)
    first.election.attempt()
    cluster.down = True
    clock.now = 6.9
    first.election.attempt()
    assert (first.election.leading, first.told) == (True, ["elected"])
    clock.now = 7.0
    assert not first.election.leading
    first.election.check_deadline()
    assert first.told == ["elected", "lost"]


def test_a_leader_that_renews_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    first = Candidate(EmbeddedCluster(tmp_path / "c"), "first", clock)
    for tick in range(20):
        clock.now = tick * 2.5
        first.election.attempt()
        assert first.election.leading
    assert first.told == ["elected"]


def test_a_leader_whose_lease_was_taken_stops(tmp_path: Path) -> None:
    cluster, clock = EmbeddedCluster(tmp_path / "c"), Clock()
    first = Candidate(cluster, "first", clock)
    first.election.attempt()
    held = cluster.get(LEASE, KEY)
    assert held is not None
    cluster.update(LEASE, held | {"spec": held["spec"] | {"holderIdentity": "usurper"}})
    clock.now = 1.0
    first.election.attempt()
    assert first.told == ["elected", "lost"]


def test_a_leader_that_stops_gives_the_lease_back(tmp_path: Path) -> None:
    cluster, clock = EmbeddedCluster(tmp_path / "c"), Clock()
    first, second = Candidate(cluster, "first", clock), Candidate(cluster, "second", clock)
    first.election.attempt()
    second.election.attempt()
    first.election.start()
    first.election.stop()
    second.election.attempt()
    assert (first.election.leading, second.election.leading) == (False, True)
