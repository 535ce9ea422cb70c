"""What an informer's local copy makes of listings and events."""

from __future__ import annotations

import pytest

from penstock_operator.runtime.cluster import EventType, Key, Listing, Manifest, WatchEvent
from penstock_operator.runtime.informer import Mirror


def thing(name: str, value: int) -> Manifest:
    return {"metadata": {"name": name, "namespace": "n"}, "value": value}


def mirror(*things: Manifest) -> Mirror:
    made = Mirror()
    made.replace(Listing(things, "1"))
    return made


def test_a_listing_tells_of_all_it_has_and_of_what_went() -> None:
    copy = mirror(thing("a", 1), thing("b", 1))
    assert copy.replace(Listing((thing("b", 2), thing("c", 1)), "2")) == (thing("b", 2), thing("c", 1), thing("a", 1))
    assert copy.items() == (thing("b", 2), thing("c", 1))


@pytest.mark.parametrize(
    ("event", "told", "left"),
    [
        pytest.param(
            EventType.ADDED, (thing("b", 2),), (thing("a", 1), thing("b", 2)), id="a new object is told and kept"
        ),
        pytest.param(EventType.BOOKMARK, (), (thing("a", 1),), id="a bookmark tells nothing"),
        pytest.param(
            EventType.DELETED, (thing("b", 2),), (thing("a", 1),), id="the deletion of an unknown object is told"
        ),
    ],
)
def test_events_of_an_unknown_object(event: EventType, told: tuple[Manifest, ...], left: tuple[Manifest, ...]) -> None:
    copy = mirror(thing("a", 1))
    assert copy.observe(WatchEvent(event, thing("b", 2), "2")) == told
    assert copy.items() == left


@pytest.mark.parametrize(
    ("event", "left"),
    [
        pytest.param(EventType.MODIFIED, thing("a", 2), id="a change tells of the object as it is and as it was"),
        pytest.param(EventType.DELETED, None, id="a deletion tells of the object as it went and as it was"),
    ],
)
def test_events_of_a_known_object(event: EventType, left: Manifest | None) -> None:
    copy = mirror(thing("a", 1))
    assert copy.observe(WatchEvent(event, thing("a", 2), "2")) == (thing("a", 2), thing("a", 1))
    assert copy.get(Key("n", "a")) == left
