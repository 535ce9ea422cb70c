"""What copies may and may not hide, on the embedded cluster and on a real API server alike.

Nothing here starts a watch: each copy is as far behind as one can be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.contract.conftest import WIDGET, Connections

from penstock.errors import Conflict
from penstock_operator.runtime.cluster import NO_LABELS, SECRET, Cluster, Key, Listing, Manifest, ResourceKind
from penstock_operator.runtime.copies.change import Change
from penstock_operator.runtime.copies.informer import Informer, InformerSettings
from penstock_operator.runtime.copies.mirrored import MirroredCluster

FINALIZER = "testing.penstock.dev/hold"


class Reads:
    """Counts what is read of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.asked: Counter[str] = Counter()

    def get(self, kind: ResourceKind, key: Key) -> Manifest | None:
        self.asked["get"] += 1
        return self._cluster.get(kind, key)

    def list(
        self,
        kind: ResourceKind,
        namespace: str | None = None,
        labels: Mapping[str, str] = NO_LABELS,
        fields: Mapping[str, str] = NO_LABELS,
    ) -> Listing:
        self.asked["list"] += 1
        return self._cluster.list(kind, namespace, labels, fields)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)


class Followed:
    """A cluster whose widgets were listed once."""

    def __init__(self, home: Connections) -> None:
        self.home = home
        self.reads = Reads(home.cluster)
        self.told: list[tuple[str, ...]] = []
        self.cluster = MirroredCluster(self.reads)  # type: ignore[arg-type]  # the rest of it is passed on
        self.informer: Informer = self.cluster.follow(WIDGET, self._changed, home.namespace, InformerSettings())
        self.informer.refresh()
        self.reads.asked.clear()

    def _changed(self, changes: Sequence[Change]) -> None:
        self.told.append(tuple(each["metadata"]["name"] for change in changes for each in change.objects))

    def get(self, name: str = "one") -> Manifest | None:
        return self.cluster.get(WIDGET, Key(self.home.namespace, name))

    def size(self, name: str = "one") -> int | None:
        found = self.get(name)
        return None if found is None else found["spec"].get("size")


@pytest.fixture
def followed(home: Connections) -> Followed:
    home.other.apply(WIDGET, widget(home, size=1), "someone")
    return Followed(home)


def widget(home: Connections, name: str = "one", **spec: Any) -> Manifest:
    return {
        "apiVersion": WIDGET.api_version,
        "kind": WIDGET.kind,
        "metadata": {"name": name, "namespace": home.namespace, "labels": {"of": name}},
        "spec": spec,
    }


def test_what_is_followed_is_read_without_a_request(followed: Followed) -> None:
    assert followed.size() == 1
    listed = followed.cluster.list(WIDGET, followed.home.namespace, {"of": "one"})
    assert [each["metadata"]["name"] for each in listed.items] == ["one"]
    assert not followed.cluster.list(WIDGET, followed.home.namespace, {"of": "two"}).items
    assert not followed.reads.asked


def test_every_write_of_our_own_is_read_back_at_once_and_told(followed: Followed) -> None:
    home, cluster, key = followed.home, followed.cluster, Key(followed.home.namespace, "one")
    cluster.apply(WIDGET, widget(home, size=2), "us")
    assert followed.size() == 2
    cluster.apply_status(WIDGET, {"metadata": {"name": "one", "namespace": key.namespace}, "status": {"a": 1}}, "us")
    found = followed.get()
    assert found is not None
    assert found["status"] == {"a": 1}
    cluster.add_finalizer(WIDGET, found, FINALIZER)
    found = followed.get()
    assert found is not None
    assert found["metadata"]["finalizers"] == [FINALIZER]
    cluster.create(WIDGET, widget(home, "two", size=7))
    assert followed.size("two") == 7
    assert not followed.reads.asked
    assert {name for names in followed.told for name in names} == {"one", "two"}
    cluster.remove_finalizer(WIDGET, found, FINALIZER)


def test_that_something_is_absent_is_asked_of_the_api(followed: Followed) -> None:
    followed.home.other.create(WIDGET, widget(followed.home, "two", size=3))
    assert followed.size("two") == 3
    assert followed.get("three") is None
    assert followed.reads.asked == {"get": 2}


def test_a_write_that_goes_by_an_old_copy_is_a_conflict_and_then_the_copy_is_new(followed: Followed) -> None:
    old = followed.get()
    assert old is not None
    followed.home.other.apply(WIDGET, widget(followed.home, size=5), "someone")
    assert followed.size() == 1
    with pytest.raises(Conflict):
        followed.cluster.add_finalizer(WIDGET, old, FINALIZER)
    assert followed.size() == 5


def test_a_change_by_another_that_comes_with_our_answer_is_told(followed: Followed) -> None:
    followed.home.other.apply(WIDGET, widget(followed.home, size=5), "someone")
    followed.told.clear()
    status = {"metadata": {"name": "one", "namespace": followed.home.namespace}, "status": {"a": 1}}
    followed.cluster.apply_status(WIDGET, status, "us")
    assert followed.size() == 5
    assert followed.told == [("one", "one")]


def test_a_refresh_shows_what_others_wrote_and_deleted(followed: Followed) -> None:
    other, namespace = followed.home.other, followed.home.namespace
    other.create(WIDGET, widget(followed.home, "two", size=3))
    other.delete(WIDGET, Key(namespace, "one"))
    assert followed.size() == 1
    followed.cluster.refresh()
    assert [each["spec"]["size"] for each in followed.cluster.list(WIDGET, namespace).items] == [3]
    assert followed.get() is None


def test_what_is_not_followed_may_be_created_by_one_who_may_not_read_it(followed: Followed) -> None:
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "one", "namespace": followed.home.namespace},
        "type": "Opaque",
    }  # fmt: skip
    followed.cluster.create(SECRET, secret)
    with pytest.raises(Conflict, match="exists"):
        followed.cluster.create(SECRET, secret)
    assert not followed.reads.asked
