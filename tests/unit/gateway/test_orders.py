from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from penstock.routing.fleet import FEATURES, ORDERS, SHOWN, downgrade_status
from penstock.routing.leases import ReplicaLease, Route
from penstock.routing.outcomes import Losses, Orders, ReplicaOutcomes, RevisionComparison, SampleSource
from penstock.routing.table import MOST_COUNTED, Replica, Table
from penstock_serving.gateway.table.orders import orders_for
from penstock_serving.gateway.table.registry import Registry

_KEY = "ns", "m"
_COMPARISON = RevisionComparison(candidate="v2", stable="v1", baseline="v1-b", shadow_share=0.2, loss=Losses.RANK)
_COUNTED = ReplicaOutcomes(answered=3, seconds={7: 3})


def _table(comparison: RevisionComparison | None, digests: dict[str, str] | None = None, **revisions: str) -> Table:
    """A table with a replica of each of these revisions, by the replica's name."""
    weights = {"v1": 100, "v1-b": 0, "v2": 0}
    table = Table().with_route(
        Route(namespace="ns", model="m", revisions=weights, digests=digests or {}, comparison=comparison)
    )
    for place, (name, revision) in enumerate(revisions.items()):
        table = table.with_lease(name, _lease(revision, address=f"10.0.0.{place + 1}:80"), 0)
    return table


def _lease(revision: str, **more: Any) -> ReplicaLease:
    given = {"namespace": "ns", "model": "m", "version": "1", "address": "10.0.0.1:80", "obeys": True} | more
    return ReplicaLease(revision=revision, **given)


def _peers(table: Table, asking: str) -> tuple[set[str], list[str]]:
    orders = orders_for(table, _KEY, asking)
    assert orders is not None
    assert orders.shadow is not None
    return {each.address for each in orders.shadow.candidate}, [each.address for each in orders.shadow.twins]


@pytest.mark.parametrize(
    ("asking", "expected"),
    [
        pytest.param("c", Orders(outcomes=True), id="a candidate counts, and shows nothing"),
        pytest.param("y", Orders(outcomes=True), id="so does a replica of the stable model that is as young"),
        pytest.param("o", None, id="one of a revision that is not compared is told nothing"),
        pytest.param("nobody", None, id="nor is one that has no lease"),
    ],
)
def test_who_is_compared_is_told_to_count(asking: str, expected: Orders | None) -> None:
    table = _table(_COMPARISON, s="v1", c="v2", y="v1-b", o="v0")
    assert orders_for(table, _KEY, asking) == expected
    assert orders_for(_table(None, s="v1", c="v2"), _KEY, asking) is None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param({"features": (SHOWN,)}, (Losses.RANK, True), id="one that knows them"),
        pytest.param({}, (Losses.AUTO, False), id="one of a former release, which would do none of it"),
    ],
)
def test_a_replica_is_ordered_in_words_that_it_knows(said: dict[str, Any], told: tuple[Losses, bool]) -> None:
    comparison = _COMPARISON.model_copy(update={"loss_where_it_suits": True})
    table = _table(comparison, c="v2").with_lease("s", _lease("v1", **said), 0)
    orders = orders_for(table, _KEY, "s")
    assert orders is not None
    assert orders.shadow is not None
    assert (orders.shadow.loss, orders.shadow.loss_where_it_suits) == told
    assert ("lossWhereItSuits" in orders.model_dump_json()) is told[1]


def test_each_replica_that_shows_has_a_part_of_the_samples_of_its_own() -> None:
    comparison = _COMPARISON.model_copy(update={"samples": SampleSource(uri="file:///data")})
    table = _table(comparison, c="v2", y="v1-b")
    for name in ("s1", "s2", "s3"):
        table = table.with_lease(name, _lease("v1", features=(SHOWN,)), 0)
    given = [
        orders.shadow.samples
        for name in ("s1", "s2", "s3")
        if (orders := orders_for(table, _KEY, name)) and orders.shadow
    ]
    assert [(each.part, each.parts) for each in given if each is not None] == [(0, 3), (1, 3), (2, 3)]


def test_a_replica_that_says_nothing_of_orders_gets_none() -> None:
    former = _table(_COMPARISON, c="v2").with_lease("s", _lease("v1", obeys=False), 0)
    assert orders_for(former, _KEY, "s") is None
    assert orders_for(former.with_lease("s", _lease("v1"), 1), _KEY, "s") is not None


def test_a_stable_replica_shows_samples_to_candidates_and_to_twins_that_are_as_young() -> None:
    table = _table(_COMPARISON, a="v1", c="v2", b="v1", y="v1-b", d="v2")
    assert _peers(table, "a") == ({"10.0.0.2:80", "10.0.0.5:80"}, ["10.0.0.4:80"])
    old = _table(_COMPARISON, a="v1", c="v2", b="v1", d="v2")
    assert _peers(old, "a") == ({"10.0.0.2:80", "10.0.0.4:80"}, ["10.0.0.3:80"])
    orders = orders_for(table, _KEY, "a")
    assert orders is not None
    assert orders.shadow is not None
    assert (orders.shadow.revision, orders.shadow.share, orders.shadow.loss) == ("v2", 0.2, Losses.RANK)


@pytest.mark.parametrize(
    ("comparison", "revisions"),
    [
        pytest.param(
            _COMPARISON.model_copy(update={"shadow_share": 0.0}), {"s": "v1", "c": "v2"}, id="none are asked for"
        ),
        pytest.param(_COMPARISON, {"s": "v1", "b": "v1"}, id="there is no candidate"),
    ],
)
def test_nothing_is_shown_where_nobody_is_to_see_it(comparison: RevisionComparison, revisions: dict[str, str]) -> None:
    assert orders_for(_table(comparison, **revisions), _KEY, "s") == Orders(outcomes=True)


def test_a_lone_stable_replica_has_no_twin_and_shows_inputs_without_traffic_too() -> None:
    replay = _COMPARISON.model_copy(update={"shadow_share": 0.0, "replay": True})
    assert _peers(_table(replay, s="v1", c="v2"), "s") == ({"10.0.0.2:80"}, [])


def test_a_candidate_that_loaded_another_model_is_shown_nothing() -> None:
    table = _table(_COMPARISON, {"v2": "sha256:2"}, s="v1", c="v2")
    assert orders_for(table, _KEY, "s") == Orders(outcomes=True)
    right = table.with_lease("d", _lease("v2", digest="sha256:2", address="10.0.0.9:80"), 0)
    assert _peers(right, "s")[0] == {"10.0.0.9:80"}


def test_peers_are_few_stay_the_same_and_are_others_for_others() -> None:
    names = {f"c{place}": "v2" for place in range(20)}
    table = _table(_COMPARISON, a="v1", b="v1", **names)
    of_a, of_b = _peers(table, "a")[0], _peers(table, "b")[0]
    assert (len(of_a), len(of_b)) == (4, 4)
    assert of_a != of_b
    assert len(of_a - _peers(table.without_replica(_KEY, "c3", 0), "a")[0]) <= 1


def test_an_encrypted_peer_is_known_by_its_name() -> None:
    table = _table(_COMPARISON, s="v1").with_lease("c", _lease("v2", encrypted=True, address="10.0.0.9:80"), 0, "u1")
    orders = orders_for(table, _KEY, "s")
    assert orders is not None
    assert orders.shadow is not None
    (peer,) = orders.shadow.candidate
    assert (peer.address, "c" in peer.tls_name.split(".")[0] or bool(peer.tls_name)) == ("10.0.0.9:80", True)


def test_outcomes_are_kept_and_told_while_revisions_are_compared_and_of_these_alone() -> None:
    def kept(comparison: RevisionComparison | None, revision: str) -> ReplicaOutcomes | None:
        table = _table(comparison).with_lease("a", _lease(revision, outcomes=_COUNTED), 0)
        (replica,) = table.status(_KEY, 0, 0, settled=True).replicas
        assert table.replicas["ns/m/a"].lease.outcomes == replica.outcomes
        return replica.outcomes

    assert kept(_COMPARISON, "v1") == _COUNTED
    assert kept(_COMPARISON, "v0") is None
    assert kept(None, "v1") is None


def test_outcomes_of_so_many_replicas_of_a_namespace_are_kept_and_those_that_are_go_on() -> None:
    said = _lease("v1", outcomes=_COUNTED)
    table = _table(_COMPARISON)
    full = {f"ns/m/{number}": Replica(str(number), said, 9) for number in range(MOST_COUNTED)}
    table = replace(table, replicas=MappingProxyType(full)).with_lease("late", said, 0).with_lease("7", said, 0)
    assert table.replicas["ns/m/late"].lease.outcomes is None
    assert table.replicas["ns/m/7"].lease.outcomes == _COUNTED
    assert (
        table.without_replica(_KEY, "7", 0).with_lease("late", said, 0).replicas["ns/m/late"].lease.outcomes == _COUNTED
    )


def test_an_operator_of_a_former_release_is_told_neither_outcomes_nor_what_is_compared() -> None:
    table = _table(_COMPARISON).with_lease("a", _lease("v1", outcomes=_COUNTED), 0)
    status = table.status(_KEY, 0, 0, settled=True)
    former = downgrade_status(FEATURES - {ORDERS}, status).model_dump_json()
    assert "outcomes" not in former
    assert "comparison" not in former
    assert downgrade_status(FEATURES, status) == status


@pytest.mark.parametrize(
    ("after", "announced"),
    [
        pytest.param(_COMPARISON.model_copy(update={"shadow_share": 0.5}), 0, id="how many samples are shown"),
        pytest.param(None, 0, id="that nothing is compared any more"),
        pytest.param(_COMPARISON.model_copy(update={"sticky": True}), 1, id="that callers stay with a revision"),
    ],
)
def test_what_replicas_are_told_is_no_work_for_haproxy(
    after: RevisionComparison | None, announced: int, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "routes.json")
    route = Route(namespace="ns", model="m", revisions={"v1": 100}, comparison=_COMPARISON)
    registry.declare(route)
    before = registry.generation
    registry.lease("a", _lease("v1"))
    leased = registry.generation
    registry.lease("a", _lease("v1", outcomes=_COUNTED))
    assert (leased - before, registry.generation) == (1, leased)
    registry.declare(route.model_copy(update={"comparison": after}))
    assert registry.table.routes["ns", "m"].comparison == after
    assert registry.generation - leased == announced
    registry.declare(route.model_copy(update={"comparison": after, "revisions": {"v1": 99, "v2": 1}}))
    assert registry.generation - leased == announced + 1
