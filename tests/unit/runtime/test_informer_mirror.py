"""What a local copy makes of listings, events and the answers to our own writes, in whatever order they come."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from penstock_operator.runtime.cluster import CONFIG_MAP, EventType, Excerpt, Key, Listing, Manifest, WatchEvent
from penstock_operator.runtime.copies.change import Change
from penstock_operator.runtime.copies.mirror import Mirror


def thing(name: str, version: int) -> Manifest:
    return {"metadata": {"name": name, "namespace": "n", "resourceVersion": str(version)}, "value": version}


def event(name: str, version: int, kind: EventType = EventType.MODIFIED) -> WatchEvent:
    return WatchEvent(kind, thing(name, version), str(version))


def mirror(*things: Manifest) -> Mirror:
    made = Mirror(CONFIG_MAP, lambda: 0.0)
    made.replace(Listing(things, "5"))
    return made


def test_a_listing_tells_of_all_it_has_and_of_what_went() -> None:
    copy = mirror(thing("a", 1), thing("b", 1))
    assert copy.replace(Listing((thing("b", 6), thing("c", 7)), "7")) == (
        Change(thing("b", 6), thing("b", 1)), Change(thing("c", 7), None), Change(None, thing("a", 1)),
    )  # fmt: skip
    assert not copy.replace(Listing((thing("b", 6), thing("c", 7)), "8"))[0].concerns(repr), "it is what it was"
    assert copy.items() == (thing("b", 6), thing("c", 7))


@pytest.mark.parametrize(
    ("seen", "told", "left"),
    [
        pytest.param(
            event("b", 6, EventType.ADDED), (Change(thing("b", 6), None),), {"a": 1, "b": 6}, id="a new object is told and kept"
        ),
        pytest.param(event("", 6, EventType.BOOKMARK), (), {"a": 1}, id="a bookmark tells nothing"),
        pytest.param(
            event("b", 6, EventType.DELETED), (Change(None, thing("b", 6)),), {"a": 1}, id="the deletion of an unknown object is told"
        ),
        pytest.param(
            event("a", 6), (Change(thing("a", 6), thing("a", 1)),), {"a": 6}, id="a change tells of the object as it is and was"
        ),
        pytest.param(
            event("a", 6, EventType.DELETED), (Change(None, thing("a", 1)),), {}, id="a deletion tells of it as it was"
        ),
        pytest.param(event("a", 1), (), {"a": 1}, id="what is known already tells nothing"),
    ],
)  # fmt: skip
def test_events(seen: WatchEvent, told: tuple[Change, ...], left: dict[str, int]) -> None:
    copy = mirror(thing("a", 1))
    assert copy.observe(seen) == told
    assert values(copy) == left


Step = Callable[[Mirror], object]


def note(name: str, version: int) -> Step:
    return lambda copy: copy.note(thing(name, version))


def see(name: str, version: int, kind: EventType = EventType.MODIFIED) -> Step:
    return lambda copy: copy.observe(event(name, version, kind))


def listed(version: int, *things: Manifest, asked_at: float = -1.0) -> Step:
    return lambda copy: copy.replace(Listing(things, str(version)), asked_at)


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        pytest.param([note("a", 9), see("a", 8)], {"a": 9}, id="an event from before a write of ours comes late"),
        pytest.param([see("a", 9), note("a", 8)], {"a": 9}, id="the answer to a write comes after a later change"),
        pytest.param(
            [see("a", 9, EventType.DELETED), note("a", 8)], {}, id="the answer to a write comes after the deletion"
        ),
        pytest.param(
            [see("a", 9, EventType.DELETED), note("a", 10)], {"a": 10}, id="a new object of a deleted one's name"
        ),
        pytest.param(
            [note("a", 10), see("a", 9, EventType.DELETED)], {"a": 10}, id="the deletion of its predecessor comes late"
        ),
        pytest.param(
            [note("a", 9), see("a", 9, EventType.DELETED)], {}, id="a deletion whose version was that of our last write"
        ),
        pytest.param([note("b", 9), listed(8, thing("a", 1))], {"a": 1, "b": 9}, id="a listing from before our write"),
        pytest.param([note("a", 9), listed(8, thing("a", 1))], {"a": 9}, id="a listing with the object as it was"),
        pytest.param(
            [see("a", 9, EventType.DELETED), listed(8, thing("a", 1))], {}, id="a listing from before a deletion"
        ),
        pytest.param(
            [note("a", 90), listed(8, thing("a", 1), asked_at=1.0)], {"a": 1},
            id="a listing asked for afterwards is the truth, as after a restore of the API's data",
        ),
        pytest.param([note("b", 9), listed(12, thing("a", 1))], {"a": 1}, id="a listing from after the object went"),
    ],
)  # fmt: skip
def test_what_comes_late_takes_the_place_of_nothing_newer(steps: list[Step], left: dict[str, int]) -> None:
    copy = mirror(thing("a", 1))
    for step in steps:
        step(copy)
    assert values(copy) == left


def test_readers_own_what_they_get_and_field_managers_are_not_kept() -> None:
    made = mirror({**thing("a", 1), "metadata": {**thing("a", 1)["metadata"], "managedFields": [{"manager": "x"}]}})
    first = made.get(Key("n", "a"))
    assert first is not None
    assert "managedFields" not in first["metadata"]
    first["value"] = "changed"
    assert made.get(Key("n", "a")) == thing("a", 1)
    assert made.items("other") == ()
    assert made.keys() == {Key("n", "a")}


def test_excerpts_are_kept_as_they_are() -> None:
    made = Mirror(Excerpt("", "v1", "Pod", "pods"))
    pod = {"metadata": {"name": "p", "namespace": "n"}, "taints": {1, 2}}
    made.observe(WatchEvent(EventType.ADDED, pod, "3"))
    assert made.items() == (pod,)
    assert made.note(thing("p", 9)) == (), "an answer to a write is no excerpt"


def values(copy: Mirror) -> dict[str, int]:
    return {each["metadata"]["name"]: each["value"] for each in copy.items()}
