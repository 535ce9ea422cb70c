"""A controller over the embedded cluster: what it looks at, and what becomes of its errors."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.owners import owner_reference
from tests.waiting import eventually

from penstock.errors import Conflict, Invalid, Unavailable
from penstock_operator.runtime.cluster import CONFIG_MAP, NAMESPACE, SECRET, Key, Manifest
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.copies.informer import InformerSettings
from penstock_operator.runtime.loop.controller import Controller, ControllerSettings, Watch
from penstock_operator.runtime.loop.queue import Backoff
from penstock_operator.runtime.loop.requeue import Requeue

FAST = ControllerSettings(workers=2, backoff=Backoff(base=0.01, maximum=0.05))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    made = EmbeddedCluster(tmp_path / "cluster.sqlite")
    yield made
    made.close()


def config_map(name: str, value: str = "1") -> Manifest:
    return {"metadata": {"name": name, "namespace": "default"}, "data": {"value": value}}


class Reconciler:
    """Notes what it was asked, and answers what it was told to, in turn."""

    def __init__(self, *answers: Exception | Requeue) -> None:
        self.asked: list[Key] = []
        self._answers = list(answers)
        self._lock = threading.Lock()

    def __call__(self, key: Key) -> Requeue | None:
        with self._lock:
            self.asked.append(key)
            answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


ONE = Key("default", "one")


def test_existing_new_changed_and_deleted_objects_are_looked_at(cluster: EmbeddedCluster) -> None:
    cluster.create(CONFIG_MAP, config_map("one"))
    reconcile = Reconciler()
    controller = Controller(CONFIG_MAP, reconcile, cluster, settings=FAST)
    controller.start()
    assert controller.wait_synced(30)
    for count, act in enumerate(
        (
            lambda: None,
            lambda: cluster.apply(CONFIG_MAP, config_map("one", "2"), "test"),
            lambda: cluster.delete(CONFIG_MAP, ONE),
        ),
        start=1,
    ):
        act()
        assert eventually(lambda count=count: len(reconcile.asked) >= count)  # type: ignore[misc]  # a default argument binds it
    assert set(reconcile.asked) == {ONE}
    assert controller.stop()


def test_a_change_of_what_an_object_owns_looks_at_the_owner(cluster: EmbeddedCluster) -> None:
    owner = cluster.create(CONFIG_MAP, config_map("one"))
    reconcile = Reconciler()
    watches = (Watch.owned_by(SECRET, CONFIG_MAP),)
    controller = Controller(CONFIG_MAP, reconcile, cluster, watches=watches, settings=FAST)
    controller.start()
    assert eventually(lambda: len(reconcile.asked) == 1)
    secret = {"metadata": {"name": "s", "namespace": "default", "ownerReferences": [owner_reference(owner)]}}
    cluster.create(SECRET, secret)
    assert eventually(lambda: len(reconcile.asked) == 2)
    assert reconcile.asked == [ONE, ONE]
    assert controller.stop()


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        pytest.param(Unavailable("Down", "no answer"), 2, id="what does not answer is asked again"),
        pytest.param(Conflict("Conflict", "someone was first"), 2, id="a conflict is tried again"),
        pytest.param(ZeroDivisionError("a bug"), 2, id="a bug is tried again"),
        pytest.param(Invalid("Invalid", "no such format"), 1, id="what the user must mend is left alone"),
    ],
)
def test_errors(cluster: EmbeddedCluster, error: Exception, attempts: int) -> None:
    reconcile = Reconciler(error)
    controller = Controller(CONFIG_MAP, reconcile, cluster, settings=FAST)
    controller.enqueue(ONE)
    controller.start()
    assert eventually(lambda: len(reconcile.asked) >= attempts)
    controller.enqueue(Key("default", "marker"), after=0.5)
    assert eventually(lambda: reconcile.asked[-1].name == "marker")
    assert reconcile.asked.count(ONE) == attempts
    assert controller.complaint() is None
    assert controller.stop()


def test_a_bug_is_logged_with_its_trace(cluster: EmbeddedCluster, caplog: pytest.LogCaptureFixture) -> None:
    controller = Controller(CONFIG_MAP, Reconciler(ZeroDivisionError("a bug")), cluster, settings=FAST)
    controller.enqueue(ONE)
    with caplog.at_level(logging.ERROR):
        controller.start()
        assert eventually(lambda: "ZeroDivisionError: a bug" in caplog.text)
    assert controller.stop()


def test_a_result_with_a_time_is_looked_at_again(cluster: EmbeddedCluster) -> None:
    reconcile = Reconciler(Requeue(0.01, "replicas are starting"))
    controller = Controller(CONFIG_MAP, reconcile, cluster, settings=FAST)
    controller.enqueue(ONE)
    controller.start()
    assert eventually(lambda: reconcile.asked == [ONE, ONE])
    assert controller.stop()


def test_a_controller_of_several_namespaces_follows_each_of_them_and_no_other(cluster: EmbeddedCluster) -> None:
    for space in ("one", "other", "third"):
        cluster.create(NAMESPACE, {"metadata": {"name": space}})
        cluster.create(CONFIG_MAP, {"metadata": {"name": "map", "namespace": space}})
    reconcile = Reconciler()
    settings = ControllerSettings(workers=2, namespaces=("one", "other"))
    controller = Controller(CONFIG_MAP, reconcile, cluster, settings=settings)
    controller.start()
    wanted = {Key("one", "map"), Key("other", "map")}
    assert eventually(lambda: set(reconcile.asked) == wanted)
    cluster.delete(CONFIG_MAP, Key("third", "map"))
    cluster.delete(CONFIG_MAP, Key("other", "map"))
    assert eventually(lambda: reconcile.asked.count(Key("other", "map")) == 2)
    assert set(reconcile.asked) == wanted
    assert controller.stop()


def test_nothing_is_done_without_the_lease_and_all_is_done_once_it_is_held(cluster: EmbeddedCluster) -> None:
    reconcile, lease = Reconciler(), threading.Event()
    controller = Controller(CONFIG_MAP, reconcile, cluster, settings=FAST, may_act=lease.is_set)
    controller.enqueue(ONE)
    controller.start()
    time.sleep(0.3)
    assert reconcile.asked == []
    lease.set()
    assert eventually(lambda: reconcile.asked == [ONE])
    assert controller.stop()


def test_stopping_waits_for_the_reconcile_that_runs(cluster: EmbeddedCluster) -> None:
    entered, leave, ended = threading.Event(), threading.Event(), threading.Event()

    def reconcile(_key: Key) -> Requeue | None:
        entered.set()
        leave.wait(30)
        ended.set()
        return None

    controller = Controller(CONFIG_MAP, reconcile, cluster, settings=FAST)
    controller.enqueue(ONE)
    controller.start()
    assert entered.wait(30)
    assert not controller.stop(timeout=0.1)
    leave.set()
    assert controller.stop()
    assert ended.is_set()


def test_reconciles_that_hang_in_all_workers_are_a_complaint(cluster: EmbeddedCluster) -> None:
    leave = threading.Event()

    def reconcile(_key: Key) -> Requeue | None:
        leave.wait(30)
        return None

    controller = Controller(CONFIG_MAP, reconcile, cluster, settings=ControllerSettings(workers=2, stuck_seconds=0.05))
    for namespace in ("one", "other"):
        controller.enqueue(Key(namespace, "hangs"))
    controller.start()
    assert eventually(lambda: "one/hangs" in (controller.complaint() or ""))
    leave.set()
    assert controller.stop()


def test_a_tenant_whose_reconciles_hang_is_told_of_and_stops_nobody_else(
    cluster: EmbeddedCluster, caplog: pytest.LogCaptureFixture
) -> None:
    leave, done = threading.Event(), threading.Event()

    def reconcile(key: Key) -> Requeue | None:
        if key.namespace == "slow":
            leave.wait(30)
        else:
            done.set()
        return None

    controller = Controller(CONFIG_MAP, reconcile, cluster, settings=ControllerSettings(workers=4, stuck_seconds=0.05))
    for index in range(20):
        controller.enqueue(Key("slow", f"hangs-{index}"))
    controller.start()
    assert eventually(lambda: controller.complaint() is None and "slow/hangs-0 has taken" in caplog.text)
    controller.enqueue(Key("other", "one"))
    assert done.wait(30)
    # The worker that did it has hung as long as all, until it comes to leave its reconcile.
    assert eventually(lambda: controller.complaint() is None)
    leave.set()
    assert controller.stop()


def test_a_watch_that_fell_behind_lists_anew_and_misses_nothing(tmp_path: Path) -> None:
    cluster = EmbeddedCluster(tmp_path / "cluster.sqlite", keep_events=3)
    settings = ControllerSettings(informers=InformerSettings(backoff=Backoff(base=0.01, maximum=0.05)))
    reconcile = Reconciler()
    controller = Controller(CONFIG_MAP, reconcile, cluster, settings=settings)
    controller.start()
    assert controller.wait_synced(30)
    for index in range(300):
        cluster.create(CONFIG_MAP, config_map(f"c{index}"))
    assert eventually(lambda: len(set(reconcile.asked)) == 300)
    assert controller.stop()
    cluster.close()
