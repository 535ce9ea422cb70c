from __future__ import annotations

import pytest
from tests.telling import Telling, telling

from penstock.errors import Conflict, Invalid, PenstockError, Unavailable
from penstock.routing.leases import ReplicaLease, RequestsJoined, Route
from penstock.routing.outcomes import RevisionComparison
from penstock.routing.table import Replica, Table, replica_key
from penstock_serving.gateway.table.traffic import Destination, Target, Traffic, Unknown, lookup, share_lots


def lease(
    model: str = "m", revision: str = "r1", version: str = "1", address: str = "10.0.0.1:1", **more: float
) -> ReplicaLease:
    return ReplicaLease(namespace="ns", model=model, version=version, revision=revision, address=address, **more)


def route(sampling_ratio: float = 0.0, **revisions: int) -> Route:
    return Route(namespace="ns", model="m", revisions=revisions, sampling_ratio=sampling_ratio)


def shares(table: Table, path: str = "ns/m") -> dict[str, int]:
    return {target.replica_id: target.weight for target in Traffic().destinations(table)[path].targets}


def arms(table: Table, path: str = "ns/m") -> dict[str, int]:
    return {arm.place: arm.lots for arm in Traffic().destinations(table)[path].arms}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (Table().with_lease("a", lease(), 0), {"a": 256}),
        (Table().with_route(route(r1=100)), {}),
        (Table().with_route(route(r1=100)).with_lease("a", lease(), 0), {"a": 256}),
        (Table().with_route(route(r2=100)).with_lease("a", lease(), 0), {}),
        (
            Table().with_route(route(r1=0, r2=5)).with_lease("a", lease(), 0).with_lease("b", lease(revision="r2"), 0),
            {"b": 256},
        ),
        (
            Table().with_route(route()).with_lease("a", lease(), 0).with_lease("b", lease(revision="r2"), 0),
            {"a": 256, "b": 256},
        ),
        (
            Table()
            .with_route(route(r1=50, r2=50))
            .with_lease("a", lease(), 0)
            .with_lease("b", lease(), 0)
            .with_lease("c", lease(revision="r2"), 0),
            {"a": 25_000_000, "b": 25_000_000, "c": 50_000_000},
        ),
        (
            Table()
            .with_route(route(r1=100, r2=1))
            .with_lease("a", lease(), 0)
            .with_lease("b", lease(revision="r2"), 0),
            {"a": 99_000_000, "b": 1_000_000},
        ),
    ],
    ids=[
        "a live lease without a declared route receives",
        "a declared route without replicas has no target",
        "a revision with a weight receives",
        "a revision that is not named does not",
        "a revision of weight zero does not",
        "without named revisions all receive alike",
        "a revision's weight is divided among its replicas",
        "a small share is small",
    ],
)
def test_who_receives_and_how_much(table: Table, expected: dict[str, int]) -> None:
    assert shares(table) == expected


def test_requests_are_split_only_while_several_declared_revisions_receive() -> None:
    two = Table().with_lease("a", lease(), 0).with_lease("b", lease(revision="r2"), 0)
    for path in ("ns/m", "ns/m/1"):
        assert arms(two, path) == {}
        # Of a lone version the arms are the model's.
        assert arms(two.with_route(route(r1=1, r2=1)), path) == {"ns/m#r1": 50, "ns/m#r2": 50}
        assert arms(two.with_route(route(r1=1, r2=0)), path) == {}
        assert arms(two.with_route(route(r1=1, r3=1)), path) == {}


def test_revisions_of_a_version_share_its_requests_apart_from_those_of_others() -> None:
    table = Table().with_route(route(r1=98, r2=1, r3=1))
    for name, version in (("r1", "1"), ("r2", "1"), ("r3", "2")):
        table = table.with_lease(name, lease(revision=name, version=version), 0)
    assert arms(table) == {"ns/m#r1": 98, "ns/m#r2": 1, "ns/m#r3": 1}
    assert arms(table, "ns/m/1") == {"ns/m/1#r1": 99, "ns/m/1#r2": 1}
    assert arms(table, "ns/m/2") == {}


def test_a_candidate_that_gets_more_lots_keeps_those_that_it_had() -> None:
    table = Table()
    for name in ("v1", "v1-b", "v2"):
        table = table.with_lease(name, lease(revision=name), 0)
    compared = RevisionComparison(candidate="v2", stable="v1", baseline="v1-b", sticky=True)
    weights = {"v1": 98, "v1-b": 1, "v2": 1}
    declared = Route(namespace="ns", model="m", revisions=weights, comparison=compared)
    found = Traffic().destinations(table.with_route(declared))["ns/m"]
    assert [(each.place, each.lots) for each in found.arms] == [("ns/m#v2", 1), ("ns/m#v1-b", 1), ("ns/m#v1", 98)]
    assert found.sticky
    more = declared.model_copy(update={"revisions": {"v1": 50, "v1-b": 25, "v2": 25}})
    assert list(arms(table.with_route(more))) == ["ns/m#v2", "ns/m#v1-b", "ns/m#v1"]


@pytest.mark.parametrize(
    ("weights", "lots"),
    [
        pytest.param({"a": 98, "b": 1, "c": 1}, {"a": 98, "b": 1, "c": 1}, id="percents"),
        pytest.param({"a": 99, "c": 1}, {"a": 99, "c": 1}, id="and with nobody between"),
        pytest.param({"a": 98, "c": 1}, {"a": 99, "c": 1}, id="one that is not there leaves its share to the others"),
        pytest.param({"a": 1, "b": 1, "c": 1}, {"a": 34, "b": 33, "c": 33}, id="thirds"),
        pytest.param({"a": 100, "b": 100, "c": 1}, {"a": 50, "b": 49, "c": 1}, id="who has a weight has a lot"),
    ],
)
def test_lots_are_shared_by_weight(weights: dict[str, int], lots: dict[str, int]) -> None:
    assert share_lots(weights) == lots


def test_each_version_has_a_path_of_its_own() -> None:
    table = (
        Table()
        .with_route(route(0.25))
        .with_lease("a", lease(), 0)
        .with_lease("b", lease(version="2", address="10.0.0.2:1"), 0)
    )
    a, b = Target("a", "10.0.0.1:1", 256), Target("b", "10.0.0.2:1", 256)
    assert Traffic().destinations(table) == {
        "ns/m": Destination((a, b), sampled_per_million=250_000),
        "ns/m/1": Destination((a,), sampled_per_million=250_000),
        "ns/m/2": Destination((b,), sampled_per_million=250_000),
    }


@pytest.mark.parametrize(
    ("model", "version", "expected"),
    [
        ("m", None, ("a",)),
        ("m", "1", ("a",)),
        ("m", "9", Unknown(Telling("model 'm' namespace 'ns' no version '9' 1"))),
        ("x", None, Unknown(Telling("model 'x' not found namespace 'ns'"))),
        ("idle", "9", ()),
    ],
    ids=[
        "a known model",
        "a known version",
        "an unknown version of a live model is refused",
        "an unknown model is refused",
        "any version of a model at zero replicas may still come",
    ],
)
def test_lookup(model: str, version: str | None, expected: tuple[str, ...] | Unknown) -> None:
    table = Table().with_route(Route(namespace="ns", model="idle")).with_lease("a", lease(), 0)
    found = lookup(table, ("ns", model), version)
    assert (found if isinstance(found, Unknown) else tuple(t.replica_id for t in found.targets)) == expected


def test_of_a_path_that_begins_with_two_slashes_they_are_told() -> None:
    table = Table().with_lease("a", lease(), 0)
    assert lookup(table, ("", "m"), None) == Unknown(Telling("two slashes /v2/models/"))


def test_a_lease_ends_unless_renewed() -> None:
    table = Table().with_lease("a", lease(lease_seconds=5), 10).with_lease("b", lease(lease_seconds=5), 12)
    assert table.next_expiry() == 15
    assert table.without_expired(14.9) is table
    assert set(table.without_expired(15).replicas) == {"ns/m/b"}
    assert set(table.with_lease("a", lease(lease_seconds=5), 14).without_expired(17).replicas) == {"ns/m/a"}
    assert table.without_expired(99).next_expiry() is None


def test_a_released_replica_and_a_withdrawn_route_are_forgotten() -> None:
    table = Table().with_route(route()).with_lease("a", lease(), 0)
    assert table.without_replica(M, "a", 1).knows(("ns", "m"))
    assert table.without_route(("ns", "m")).knows(("ns", "m"))
    assert not table.without_replica(M, "a", 1).without_route(("ns", "m")).knows(("ns", "m"))


def test_status_tells_what_receives_and_how_long_the_lease_lasts() -> None:
    table = Table().with_route(route(r2=1)).with_lease("a", lease(lease_seconds=5), 10)
    (status,) = table.statuses({("ns", "m"): 3}, now=12)
    assert (status.held_requests, status.declared) == (3, route(r2=1))
    assert [(r.replica_id, r.receiving, r.expires_in_seconds) for r in status.replicas] == [("a", False, 3)]


def test_whether_requests_are_joined_is_told_now_and_then_and_kept_and_told_on_to_who_asks() -> None:
    said = RequestsJoined(joined=False, reason="why")
    table = Table().with_lease("a", lease(joining=said), 0).with_lease("a", lease(), 1)
    (asked,) = table.statuses({}, now=2, joining=True)
    assert asked.replicas[0].joining == said
    (unasked,) = table.statuses({}, now=2)
    assert "joining" not in unasked.model_dump_json(), "a reader of a former release refuses what it does not know"


@pytest.mark.parametrize(
    ("namespace", "model", "version", "address", "error"),
    [
        ("ns", "m", "1", "[::1]:80", None),
        ("ns", "m", "1", "127.0.0.1:65535", None),
        ("ns", "m", "1", "10.0.0.1", Invalid),
        ("ns", "m", "1", "10.0.0.1:0", Invalid),
        ("ns", "m", "1", "10.0.0.1:65536", Invalid),
        ("ns", "m", "1", "10.0.0.1:1;shutdown sessions", Invalid),
        ("ns", "m", "1", "localhost:80", Invalid),
        ("ns", "m", "1", "0.0.0.0:80", Invalid),
        ("ns", "m", "1", "::1:80", Invalid),
        ("ns", "m", "1\n", "10.0.0.1:1", Invalid),
        ("ns", "a/b", "1", "10.0.0.1:1", Invalid),
        ("ns", "", "1", "10.0.0.1:1", Invalid),
        ("n s", "m", "1", "10.0.0.1:1", Invalid),
        ("v2", "m", "1", "10.0.0.1:1", Invalid),
    ],
    ids=[
        "an IPv6 address is fine",
        "an IPv4 address is fine",
        "an address needs a port",
        "port zero is none",
        "a port has 16 bits",
        "no command hides in an address",
        "a name would have to be resolved",
        "no address is everyone's",
        "an IPv6 address needs its brackets",
        "no line break in a version",
        "no slash in a name",
        "a name is not empty",
        "no space in a namespace",
        "the protocol's prefix is no namespace",
    ],
)
def test_what_a_lease_may_say(
    namespace: str, model: str, version: str, address: str, error: type[PenstockError] | None
) -> None:
    said = ReplicaLease(namespace=namespace, model=model, version=version, revision="r", address=address)
    table = Table().with_lease("a", lease(), 0)
    if error is None:
        assert table.with_lease("a", said, 0).replicas["ns/m/a"].lease == said
    else:
        with pytest.raises(error):
            table.with_lease("a", said, 0)


def test_a_replicas_id_is_its_models_own() -> None:
    table = Table().with_lease("a", lease(), 0).with_lease("a", lease("other", address="10.0.0.9:1"), 0)
    assert {key: replica.lease.model for key, replica in table.replicas.items()} == {
        "ns/m/a": "m", "ns/other/a": "other",
    }  # fmt: skip
    assert set(table.without_replica(("ns", "other"), "a", 1).replicas) == {"ns/m/a"}


def test_a_deployment_that_was_made_anew_has_none_of_the_formers_replicas() -> None:
    first, second = (Route(namespace="ns", model="m", owner=uid) for uid in ("u1", "u2"))
    table = Table().with_route(first).with_lease("a", lease(), 0, "u1").with_lease("former", lease(), 0)
    with pytest.raises(Conflict, match="former deployment"):
        table.with_lease("b", lease(), 0, "u2")
    later = table.with_route(second)
    assert set(later.replicas) == {"ns/m/former"}
    with pytest.raises(Conflict, match="former deployment"):
        later.with_lease("a", lease(), 1, "u1")
    assert set(later.with_lease("b", lease(), 1, "u2").replicas) == {"ns/m/former", "ns/m/b"}


@pytest.mark.parametrize("weight", [-1, 101])
def test_a_weight_is_a_percentage(weight: int) -> None:
    with pytest.raises(Invalid, match="0 to 100"):
        Table().with_route(route(r1=weight))


def test_one_model_cannot_fill_the_gateway() -> None:
    table = Table()
    for number in range(8):
        table = table.with_lease(str(number), lease(version=str(number)), 0)
    with pytest.raises(Invalid, match="versions"):
        table.with_lease("more", lease(version="more"), 0)
    with pytest.raises(Unavailable, match="versions"):
        table.with_lease("7", lease(version="more"), 0)
    for number in range(1016):
        table = table.with_lease(f"r{number}", lease(), 0)
    with pytest.raises(Invalid, match="replicas"):
        table.with_lease("more", lease(), 0)


M = ("ns", "m")


def left(how: str) -> tuple[Table, float]:
    """A table whose model had eight versions until a moment ago, and when that was."""
    table = Table(rest_seconds=600)
    for number in range(8):
        table = table.with_lease(str(number), lease(version=str(number), lease_seconds=5), 0)
    if how == "ended":
        return table.without_expired(5), 5
    if how == "replaced":
        return table.with_lease("7", lease(version="6"), 5), 5
    for number in range(8):
        table = table.without_replica(M, str(number), 5)
    return table, 5


@pytest.mark.parametrize("how", ["released", "ended", "replaced"])
def test_versions_count_for_as_long_as_requests_may_be_under_way_to_them(how: str) -> None:
    table, gone = left(how)
    with pytest.raises(Unavailable, match=telling("600 s")):
        table.with_lease("more", lease(version="more"), gone)
    assert table.with_lease("back", lease(version="3"), gone).replicas["ns/m/back"].lease.version == "3"
    assert table.with_lease("more", lease("other", version="more"), gone).knows(("ns", "other"))
    with pytest.raises(Unavailable, match=telling("1 s")):
        table.with_lease("more", lease(version="more"), gone + 599)
    assert table.with_lease("more", lease(version="more"), gone + 600).replicas["ns/m/more"].lease.version == "more"


def test_a_version_whose_last_replica_stays_does_not_rest() -> None:
    table = Table().with_lease("a", lease(), 0).with_lease("b", lease(), 0).without_replica(M, "a", 1)
    assert table.resting == {}
    assert set(table.without_replica(M, "b", 2).resting) == {(("ns", "m"), "1")}
    assert table.without_replica(M, "b", 2).with_lease("b", lease(), 3).resting == {}


def test_destinations_that_are_kept_are_those_that_would_be_found_anew() -> None:
    kept, table = Traffic(), Table()
    steps = [
        lambda table: table.with_lease("a", lease(), 0),
        lambda table: table.with_lease("a", lease(), 1),
        lambda table: table.with_lease("b", lease("other"), 1),
        lambda table: table.with_route(route(0.5, r1=100)),
        lambda table: table.with_lease("c", lease(revision="r2", version="2"), 2),
        lambda table: table.with_route(route(0.5, r1=50, r2=50)),
        lambda table: table.with_lease("a", lease(address="10.0.0.2:1"), 3),
        lambda table: table.with_lease("c", lease(revision="r2", version="3"), 3),
        lambda table: table.without_replica(M, "a", 4),
        lambda table: table.without_route(("ns", "m")),
        lambda table: table.without_expired(60),
    ]
    for step in steps:
        before, table = table, step(table)
        assert table != before
        assert kept.destinations(table) == Traffic().destinations(table)


def of_digest(digest: str, revision: str = "r1") -> ReplicaLease:
    return lease(revision=revision).model_copy(update={"digest": digest})


FIRST = Table().with_lease("a", of_digest("A"), 0).with_lease("b", of_digest("B"), 0)


def told(digest: str) -> Route:
    return route(r1=100).model_copy(update={"digests": {"r1": digest}})


@pytest.mark.parametrize(
    ("table", "receiving"),
    [
        (FIRST, {"a"}),
        (FIRST.with_lease("a", of_digest("A"), 1).with_lease("b", of_digest("B"), 1), {"a"}),
        (FIRST.with_lease("c", of_digest("B"), 0).without_replica(M, "a", 1), set()),
        (FIRST.with_lease("b", of_digest("B"), 9).without_expired(6), set()),
        (FIRST.without_replica(M, "a", 1).without_replica(M, "b", 1).with_lease("c", of_digest("C"), 2), {"c"}),
        (FIRST.with_route(route(r1=100)), {"a"}),
        (FIRST.with_route(told("B")), {"b"}),
        (FIRST.with_route(told("C")), set()),
        (FIRST.with_route(told("")), set()),
        (FIRST.with_lease("c", of_digest("C", "r2"), 0), {"a", "c"}),
    ],
    ids=[
        "the first that came decides", "renewing changes nothing", "it decides also when it has left",
        "and when its lease has ended", "with none left another may decide", "a route that does not say so changes nothing",
        "the operator's word is above that", "nobody has what the operator names", "the operator does not know yet",
        "each revision has its own",
    ],
)  # fmt: skip
def test_one_revision_is_one_model(table: Table, receiving: set[str]) -> None:
    assert set(shares(table)) == receiving


def test_a_namespace_leaves_room_for_the_replicas_of_others() -> None:
    """However many models it has: each has fewer replicas than one may have."""
    crowd = [Replica(f"r{each}", lease(model=f"m{each % 8}"), 60) for each in range(4096)]
    table = Table(replicas={replica_key(each.key, each.replica_id): each for each in crowd})
    with pytest.raises(Invalid, match=telling("4096 replicas")):
        table.with_lease("late", lease(model="m9"), 0)
    assert table.with_lease("r0", lease(model="m0", version="2"), 0).replicas["ns/m0/r0"].lease.version == "2"
    other = ReplicaLease(namespace="other", model="m", version="1", revision="r1", address="10.0.0.2:1")
    assert "other/m/a" in table.with_lease("a", other, 0).replicas
    assert (
        "ns/m9/late" in table.without_replica(("ns", "m1"), "r1", 0).with_lease("late", lease(model="m9"), 0).replicas
    )
