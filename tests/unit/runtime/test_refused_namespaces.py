"""What the API does not let be read in one namespace keeps nobody else from being looked after."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.waiting import eventually

from penstock.errors import Unavailable
from penstock_operator.runtime.cluster import (
    CONFIG_MAP,
    FORBIDDEN,
    NAMESPACE,
    NO_LABELS,
    Key,
    Listing,
    NotFound,
    ResourceKind,
)
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.copies.informer import InformerSettings
from penstock_operator.runtime.copies.mirrored import MirroredCluster
from penstock_operator.runtime.loop.controller import Controller, ControllerSettings
from penstock_operator.runtime.loop.queue import Backoff, Schedule
from penstock_operator.runtime.loop.requeue import Requeue

SETTINGS = ControllerSettings(
    workers=2,
    namespaces=("audio", "vision"),
    backoff=Backoff(base=0.01, maximum=0.05),
    informers=InformerSettings(idle_seconds=0.2, backoff=Backoff(base=0.01, maximum=0.05)),
)
KEYS = {name: Key(name, "one") for name in ("audio", "vision")}


class Bounded(EmbeddedCluster):
    """Refuses to let some namespaces be read."""

    refused: frozenset[str] = frozenset()
    error: Unavailable | NotFound = Unavailable(FORBIDDEN, "may not list")

    def _ask(self, namespace: str | None) -> None:
        if namespace in self.refused:
            raise self.error

    def list(
        self,
        kind: ResourceKind,
        namespace: str | None = None,
        labels: Mapping[str, str] = NO_LABELS,
        fields: Mapping[str, str] = NO_LABELS,
    ) -> Listing:
        self._ask(namespace)
        return super().list(kind, namespace, labels, fields)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Bounded]:
    made = Bounded(tmp_path / "cluster.sqlite")
    for name in KEYS:
        made.create(NAMESPACE, {"metadata": {"name": name}})
        made.create(CONFIG_MAP, {"metadata": {"name": "one", "namespace": name}, "data": {}})
    yield made
    made.close()


class Looks:
    """Notes which keys were looked at."""

    def __init__(self) -> None:
        self.at: list[Key] = []
        self._lock = threading.Lock()

    def __call__(self, key: Key) -> Requeue | None:
        with self._lock:
            self.at.append(key)
        return None


def started(copies: MirroredCluster, looks: Looks) -> Controller:
    made = Controller(CONFIG_MAP, looks, copies, settings=SETTINGS)
    made.start()
    assert made.wait_synced(20), "one namespace that is refused is not waited for"
    return made


def test_a_namespace_that_may_not_be_read_at_the_start_is_not_waited_for_and_read_once_it_may(cluster: Bounded) -> None:
    cluster.refused = frozenset({"audio"})
    copies, looks = MirroredCluster(cluster), Looks()
    controller = started(copies, looks)
    eventually(lambda: KEYS["vision"] in looks.at, "the other is looked at")
    assert controller.refusals() == {"audio": "may not list"}
    assert copies.has_listed(CONFIG_MAP)
    assert copies.unreadable_namespaces(CONFIG_MAP) == {"audio"}
    cluster.refused = frozenset()
    eventually(lambda: KEYS["audio"] in looks.at, "it is looked at as well")
    assert controller.refusals() == {}
    assert controller.stop()


LOST = [("a right", Unavailable(FORBIDDEN, "may not list")), ("the kind itself", NotFound("NotFound", "is not served"))]


@pytest.mark.parametrize("error", [row[1] for row in LOST], ids=[row[0] for row in LOST])
def test_a_new_leader_goes_on_where_it_lost(cluster: Bounded, error: Unavailable | NotFound) -> None:
    copies = MirroredCluster(cluster)
    controller = started(copies, Looks())
    assert copies.get(CONFIG_MAP, KEYS["audio"]) is not None
    cluster.error, cluster.refused = error, frozenset({"audio"})
    copies.refresh()
    assert copies.get(CONFIG_MAP, KEYS["vision"]) is not None
    with pytest.raises(type(error)):
        copies.list(CONFIG_MAP, "audio")  # what it had before may be gone
    assert controller.stop()


def test_a_kind_that_cannot_be_listed_for_long_is_left_out_and_not_before(cluster: Bounded) -> None:
    copies = MirroredCluster(cluster)
    controller = started(copies, Looks())
    cluster.error, cluster.refused = Unavailable("InternalError", "its webhook does not answer"), frozenset({"audio"})
    with pytest.raises(Unavailable):
        copies.refresh()
    copies.refresh(patient=False)
    with pytest.raises(Unavailable):
        copies.list(CONFIG_MAP, "audio")
    assert copies.get(CONFIG_MAP, KEYS["vision"]) is not None
    assert controller.stop()


def test_a_queue_says_for_how_long_its_oldest_key_has_been_due() -> None:
    queue: Schedule[str] = Schedule()
    queue.add("a", 3.0)
    queue.add("b", 9.0)
    assert queue.overdue_seconds(10.0) == 7.0
    assert queue.take(10.0) == "a"
    assert queue.overdue_seconds(10.0) == 1.0, "what is being processed does not wait"
    queue.mark_succeeded("a")
    assert queue.take(10.0) == "b"
    assert queue.overdue_seconds(10.0) == 0.0
