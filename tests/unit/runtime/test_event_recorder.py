"""Events count up instead of repeating, and one object cannot flood the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import Unavailable
from penstock_operator.runtime.cluster import EVENT, Manifest, ResourceKind
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.loop.events import EventRecorder, EventSettings
from penstock_operator.runtime.loop.news import News

ABOUT: Manifest = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "one", "namespace": "default", "uid": "u1", "resourceVersion": "7"},
}


class Stage:
    """A recorder over an embedded cluster, at a time that the test sets."""

    def __init__(self, path: Path, settings: EventSettings) -> None:
        self.now = 0.0
        self.cluster = EmbeddedCluster(path)
        self.recorder = EventRecorder(
            self.cluster, "penstock.dev/operator", "pod-1", settings=settings, clock=lambda: self.now
        )

    def events(self) -> list[Manifest]:
        return list(self.cluster.list(EVENT, "default").items)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "c", EventSettings(series_seconds=100, update_seconds=10, burst=3, refill_seconds=50))
    yield made
    made.cluster.close()


def test_an_event_says_what_about_whom_and_by_whom(stage: Stage) -> None:
    stage.recorder.record(ABOUT, News(True, "ModelNotFound", "there is no file"))
    (event,) = stage.events()
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "ModelNotFound", "there is no file")
    assert event["regarding"]["uid"] == "u1"
    assert (event["reportingController"], event["reportingInstance"]) == ("penstock.dev/operator", "pod-1")
    assert "series" not in event


def test_the_same_again_counts_up_and_is_written_now_and_then(stage: Stage) -> None:
    for stage.now in (0.0, 1.0, 2.0):
        stage.recorder.record(ABOUT, News(True, "Down", "no answer"))
    assert "series" not in stage.events()[0]
    stage.now = 10.0
    stage.recorder.record(ABOUT, News(True, "Down", "no answer"))
    (event,) = stage.events()
    assert event["series"]["count"] == 4


def test_the_same_after_a_long_silence_is_a_new_event(stage: Stage) -> None:
    stage.recorder.record(ABOUT, News(False, "Ready", "it answers"))
    stage.now = 101.0
    stage.recorder.record(ABOUT, News(False, "Ready", "it answers"))
    assert len(stage.events()) == 2


def test_one_object_may_say_only_so_much_at_once_and_more_later(stage: Stage) -> None:
    for index in range(10):
        stage.recorder.record(ABOUT, News(False, "Step", f"step {index}"))
    assert len(stage.events()) == 3
    stage.now = 50.0
    stage.recorder.record(ABOUT, News(False, "Step", "another"))
    assert len(stage.events()) == 4


def test_a_flood_by_one_object_does_not_silence_another(stage: Stage) -> None:
    for index in range(10):
        stage.recorder.record(ABOUT, News(False, "Step", f"step {index}"))
    other = ABOUT | {"metadata": ABOUT["metadata"] | {"name": "two", "uid": "u2"}}
    stage.recorder.record(other, News(False, "Ready", "it answers"))
    assert [event["regarding"]["name"] for event in stage.events()].count("two") == 1


def test_a_cluster_that_does_not_answer_fails_no_one(tmp_path: Path) -> None:
    class Down(EmbeddedCluster):
        def apply(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
            if kind is EVENT:
                raise Unavailable("Down", "no answer")
            return super().apply(kind, manifest, field_manager)

    cluster = Down(tmp_path / "c")
    EventRecorder(cluster, "penstock.dev/operator", "pod-1").record(ABOUT, News(False, "Ready", "it answers"))
    assert cluster.list(EVENT).items == ()
    cluster.close()
