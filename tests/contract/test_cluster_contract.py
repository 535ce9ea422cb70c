"""What the operator relies on in a Kubernetes API, held by the embedded cluster and by a real API server alike."""

from __future__ import annotations

import threading
import time
from itertools import islice
from typing import Any

import pytest
from tests.contract.conftest import WIDGET, Connections
from tests.owners import owner_reference
from tests.waiting import eventually

from penstock.errors import Conflict, Invalid
from penstock_operator.runtime.cluster import (
    CONFIG_MAP,
    CORE_EVENT,
    EVENT,
    LEASE,
    OF_PODS,
    Cluster,
    EventType,
    Excerpt,
    Gone,
    Key,
    Manifest,
    NotFound,
    Propagation,
    WatchEvent,
    key_of,
    owner_keys,
)
from penstock_operator.runtime.loop.events import EventRecorder, EventSettings
from penstock_operator.runtime.loop.news import News

FINALIZER = "testing.penstock.dev/hold"


def widget(home: Connections, name: str = "one", **spec: Any) -> Manifest:
    return {
        "apiVersion": WIDGET.api_version,
        "kind": WIDGET.kind,
        "metadata": {"name": name, "namespace": home.namespace},
        "spec": spec,
    }


def status_of(home: Connections, status: Manifest, name: str = "one") -> Manifest:
    return {"metadata": {"name": name, "namespace": home.namespace}, "status": status}


def config_map(home: Connections, name: str, owners: tuple[Manifest, ...] = ()) -> Manifest:
    metadata = {
        "name": name,
        "namespace": home.namespace,
        "ownerReferences": [owner_reference(owner) | {"controller": not index} for index, owner in enumerate(owners)],
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "1"}}


def read(home: Connections, name: str = "one") -> Manifest:
    found = home.cluster.get(WIDGET, Key(home.namespace, name))
    assert found is not None
    return found


def changes(home: Connections, version: str, count: int) -> list[WatchEvent]:
    """The next changes of widgets, bookmarks left out."""
    events = home.cluster.watch(WIDGET, home.namespace, version, 10.0)
    return list(islice((event for event in events if event.type is not EventType.BOOKMARK), count))


def test_an_absent_object_reads_as_none(home: Connections) -> None:
    assert home.cluster.get(WIDGET, Key(home.namespace, "absent")) is None


def test_apply_creates_with_uid_generation_version_and_time(home: Connections) -> None:
    made = home.cluster.apply(WIDGET, widget(home, size=1), "alice")
    assert made["spec"] == {"size": 1}
    assert made["metadata"]["uid"]
    assert made["metadata"]["generation"] == 1
    assert made["metadata"]["creationTimestamp"].endswith("Z")
    assert read(home)["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert (made["apiVersion"], made["kind"]) == (WIDGET.api_version, "Widget")


def test_a_changed_spec_is_a_new_generation_and_version_of_the_same_object(home: Connections) -> None:
    before = home.cluster.apply(WIDGET, widget(home, size=1), "alice")["metadata"]
    after = home.cluster.apply(WIDGET, widget(home, size=2), "alice")["metadata"]
    assert (after["uid"], after["generation"]) == (before["uid"], 2)
    assert after["resourceVersion"] != before["resourceVersion"]


def test_applying_the_same_again_changes_nothing(home: Connections) -> None:
    before = home.cluster.apply(WIDGET, widget(home, size=1), "alice")
    assert home.cluster.apply(WIDGET, widget(home, size=1), "alice") == before


def test_a_changed_label_is_no_new_generation(home: Connections) -> None:
    home.cluster.apply(WIDGET, widget(home, size=1), "alice")
    labelled = widget(home, size=1)
    labelled["metadata"]["labels"] = {"a": "b"}
    after = home.cluster.apply(WIDGET, labelled, "alice")["metadata"]
    assert (after["labels"], after["generation"]) == ({"a": "b"}, 1)


def test_a_field_that_an_applier_leaves_out_is_removed(home: Connections) -> None:
    home.cluster.apply(WIDGET, widget(home, size=1, deep={"a": 1, "b": 2}), "alice")
    after = home.cluster.apply(WIDGET, widget(home, deep={"a": 1}), "alice")
    assert after["spec"] == {"deep": {"a": 1}}


def test_a_field_of_another_applier_stays(home: Connections) -> None:
    home.cluster.apply(WIDGET, widget(home, size=1), "alice")
    home.cluster.apply(WIDGET, widget(home, colour="red"), "bob")
    assert home.cluster.apply(WIDGET, widget(home, size=2), "alice")["spec"] == {"size": 2, "colour": "red"}


def test_a_field_that_two_applied_alike_goes_only_with_the_second(home: Connections) -> None:
    home.cluster.apply(WIDGET, widget(home, size=1, colour="red"), "alice")
    home.cluster.apply(WIDGET, widget(home, colour="red"), "bob")
    assert home.cluster.apply(WIDGET, widget(home, size=1), "alice")["spec"] == {"size": 1, "colour": "red"}
    assert home.cluster.apply(WIDGET, widget(home), "bob")["spec"] == {"size": 1}


def test_a_forced_apply_takes_the_field_over(home: Connections) -> None:
    home.cluster.apply(WIDGET, widget(home, size=1), "alice")
    home.cluster.apply(WIDGET, widget(home, size=2), "bob")
    assert home.cluster.apply(WIDGET, widget(home), "alice")["spec"] == {"size": 2}


def test_a_list_is_taken_whole(home: Connections) -> None:
    home.cluster.apply(WIDGET, widget(home, parts=["a", "b"]), "alice")
    assert home.cluster.apply(WIDGET, widget(home, parts=["c"]), "alice")["spec"] == {"parts": ["c"]}


def test_status_in_an_apply_of_the_object_is_ignored(home: Connections) -> None:
    made = home.cluster.apply(WIDGET, widget(home, size=1) | {"status": {"phase": "Made up"}}, "alice")
    assert "status" not in made


def test_status_is_written_apart_and_is_no_new_generation(home: Connections) -> None:
    home.cluster.apply(WIDGET, widget(home, size=1), "alice")
    after = home.cluster.apply_status(WIDGET, status_of(home, {"phase": "Ready"}), "operator")
    assert (after["status"], after["spec"], after["metadata"]["generation"]) == ({"phase": "Ready"}, {"size": 1}, 1)
    again = home.cluster.apply(WIDGET, widget(home, size=2), "alice")
    assert again["status"] == {"phase": "Ready"}


def test_a_status_field_left_out_is_removed(home: Connections) -> None:
    home.cluster.apply(WIDGET, widget(home), "alice")
    home.cluster.apply_status(WIDGET, status_of(home, {"phase": "Ready", "url": "http://x"}), "operator")
    assert home.cluster.apply_status(WIDGET, status_of(home, {"phase": "Gone"}), "operator")["status"] == {
        "phase": "Gone"
    }


def test_conditions_of_two_writers_live_side_by_side(home: Connections) -> None:
    home.cluster.apply(WIDGET, widget(home), "alice")
    ready, warm = {"type": "Ready", "status": "True"}, {"type": "Warm", "status": "False"}
    home.cluster.apply_status(WIDGET, status_of(home, {"conditions": [ready]}), "operator")
    after = home.cluster.apply_status(WIDGET, status_of(home, {"conditions": [warm]}), "prober")
    assert sorted(after["status"]["conditions"], key=lambda condition: condition["type"]) == [ready, warm]


def test_status_of_an_absent_object_is_not_found(home: Connections) -> None:
    with pytest.raises(NotFound):
        home.cluster.apply_status(WIDGET, status_of(home, {"phase": "Ready"}), "operator")


def test_what_the_schema_forbids_is_invalid_with_the_reason(home: Connections) -> None:
    with pytest.raises(Invalid, match=r"spec\.size.*should be greater than or equal to 0"):
        home.cluster.apply(WIDGET, widget(home, size=-1), "alice")
    assert home.cluster.get(WIDGET, Key(home.namespace, "one")) is None


def test_an_apply_to_what_changed_since_it_was_read_is_a_conflict(home: Connections) -> None:
    seen = home.cluster.apply(WIDGET, widget(home, size=1), "alice")["metadata"]["resourceVersion"]
    home.cluster.apply(WIDGET, widget(home, size=2), "bob")
    stale = widget(home, size=3)
    stale["metadata"]["resourceVersion"] = seen
    with pytest.raises(Conflict):
        home.cluster.apply(WIDGET, stale, "alice")
    assert read(home)["spec"] == {"size": 2}
    stale["metadata"]["resourceVersion"] = read(home)["metadata"]["resourceVersion"]
    home.cluster.apply(WIDGET, stale, "alice")
    assert read(home)["spec"] == {"size": 3}


def test_list_gives_only_what_has_all_the_labels(home: Connections) -> None:
    for name, labels in (("both", {"a": "1", "b": "2"}), ("one", {"a": "1"}), ("none", {})):
        labelled = widget(home, name)
        labelled["metadata"]["labels"] = labels
        home.cluster.create(WIDGET, labelled)
    found = home.cluster.list(WIDGET, home.namespace, {"a": "1", "b": "2"})
    assert [each["metadata"]["name"] for each in found.items] == ["both"]


def test_list_gives_only_events_about_what_is_asked_for(home: Connections) -> None:
    for kind in ("Pod", "Node"):
        about = {"kind": kind, "name": "x", "namespace": home.namespace}
        metadata = {"name": f"of-{kind.lower()}", "namespace": home.namespace}
        event = {"metadata": metadata, "involvedObject": about, "type": "Warning", "reason": "FailedMount"}
        home.cluster.create(CORE_EVENT, {"apiVersion": "v1", "kind": "Event", **event})
    found = home.cluster.list(CORE_EVENT, home.namespace, fields=OF_PODS)
    assert [each["metadata"]["name"] for each in found.items] == ["of-pod"]


def test_an_object_in_an_absent_namespace_is_not_found(home: Connections) -> None:
    lost = widget(home)
    lost["metadata"]["namespace"] = "absent"
    with pytest.raises(NotFound, match="absent"):
        home.cluster.create(WIDGET, lost)


def test_create_of_what_exists_is_a_conflict(home: Connections) -> None:
    home.cluster.create(WIDGET, widget(home, size=1))
    with pytest.raises(Conflict):
        home.cluster.create(WIDGET, widget(home, size=2))


def test_update_replaces_what_was_read(home: Connections) -> None:
    made = home.cluster.create(WIDGET, widget(home, size=1, colour="red"))
    home.cluster.apply_status(WIDGET, status_of(home, {"phase": "Ready"}), "operator")
    made = read(home)
    after = home.cluster.update(WIDGET, made | {"spec": {"size": 2}})
    assert (after["spec"], after["status"], after["metadata"]["generation"]) == ({"size": 2}, {"phase": "Ready"}, 2)


def test_update_of_what_changed_meanwhile_is_a_conflict(home: Connections) -> None:
    made = home.cluster.create(WIDGET, widget(home, size=1))
    home.cluster.update(WIDGET, made | {"spec": {"size": 2}})
    with pytest.raises(Conflict):
        home.cluster.update(WIDGET, made | {"spec": {"size": 3}})
    assert read(home)["spec"] == {"size": 2}


def test_of_many_updates_of_one_version_exactly_one_wins(home: Connections) -> None:
    lease = {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {"name": "leader", "namespace": home.namespace},
        "spec": {"leaseDurationSeconds": 10},
    }
    made = home.cluster.create(LEASE, lease)
    won: list[str] = []

    def claim(cluster: Cluster, identity: str) -> None:
        try:
            cluster.update(LEASE, made | {"spec": {"holderIdentity": identity}})
        except Conflict:
            return
        won.append(identity)

    clusters = (home.cluster, home.other) * 4
    threads = [threading.Thread(target=claim, args=(cluster, f"p{i}")) for i, cluster in enumerate(clusters)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(won) == 1
    held = home.cluster.get(LEASE, key_of(made))
    assert held is not None
    assert held["spec"]["holderIdentity"] == won[0]


def test_list_sees_one_namespace_or_all(home: Connections) -> None:
    for name in ("one", "two"):
        home.cluster.apply(WIDGET, widget(home, name), "alice")
    assert [item["metadata"]["name"] for item in home.cluster.list(WIDGET, home.namespace).items] == ["one", "two"]
    assert home.cluster.list(WIDGET, "default").items == ()
    everywhere = {key_of(item) for item in home.cluster.list(WIDGET).items}
    assert {Key(home.namespace, "one"), Key(home.namespace, "two")} <= everywhere


def test_listed_objects_of_built_in_kinds_carry_their_kind(home: Connections) -> None:
    home.cluster.create(CONFIG_MAP, config_map(home, "one"))
    listed = {item["metadata"]["name"]: item for item in home.cluster.list(CONFIG_MAP, home.namespace).items}
    assert (listed["one"]["apiVersion"], listed["one"]["kind"]) == ("v1", "ConfigMap")


def test_a_watch_tells_every_change_since_the_listing_in_order(home: Connections) -> None:
    version = home.cluster.list(WIDGET, home.namespace).resource_version
    home.other.apply(WIDGET, widget(home, size=1), "alice")
    home.other.apply(WIDGET, widget(home, size=2), "alice")
    home.other.apply_status(WIDGET, status_of(home, {"phase": "Ready"}), "operator")
    home.other.delete(WIDGET, Key(home.namespace, "one"))
    events = changes(home, version, 4)
    assert [event.type for event in events] == [
        EventType.ADDED,
        EventType.MODIFIED,
        EventType.MODIFIED,
        EventType.DELETED,
    ]
    assert [event.manifest["spec"]["size"] for event in events] == [1, 2, 2, 2]


def test_an_excerpt_is_all_that_lists_and_watches_give_of_an_object(home: Connections) -> None:
    sizes = Excerpt(
        WIDGET.group, WIDGET.version, WIDGET.kind, WIDGET.plural, has_status=True,
        project=lambda full: {"metadata": {"name": full["metadata"]["name"]}, "size": full["spec"]["size"]},
    )  # fmt: skip
    listing = home.cluster.list(sizes, home.namespace)
    home.cluster.create(WIDGET, widget(home, "a", size=3))
    assert home.cluster.list(sizes, home.namespace).items == ({"metadata": {"name": "a"}, "size": 3},)
    watched = next(iter(home.cluster.watch(sizes, home.namespace, listing.resource_version, 5.0)))
    assert watched.manifest == {"metadata": {"name": "a"}, "size": 3}
    assert watched.resource_version != listing.resource_version


def test_a_watch_resumes_where_another_ended(home: Connections) -> None:
    version = home.cluster.list(WIDGET, home.namespace).resource_version
    for size in range(4):
        home.cluster.apply(WIDGET, widget(home, size=size), "alice")
    first = changes(home, version, 2)
    rest = changes(home, first[-1].resource_version, 2)
    assert [event.manifest["spec"]["size"] for event in (*first, *rest)] == [0, 1, 2, 3]


def test_a_watch_sees_what_another_connection_does_while_it_waits(home: Connections) -> None:
    version = home.cluster.list(WIDGET, home.namespace).resource_version
    writer = threading.Timer(0.5, lambda: home.other.apply(WIDGET, widget(home, size=7), "alice"))
    writer.start()
    (event,) = changes(home, version, 1)
    writer.join(10)
    assert event.manifest["spec"] == {"size": 7}


def test_a_watch_tells_nothing_of_other_namespaces(home: Connections) -> None:
    version = home.cluster.list(WIDGET, "default").resource_version
    home.cluster.apply(WIDGET, widget(home), "alice")
    events = home.cluster.watch(WIDGET, "default", version, 1.0)
    assert [event for event in events if event.type is not EventType.BOOKMARK] == []


def test_a_watch_of_all_namespaces_tells_of_this_one(home: Connections) -> None:
    version = home.cluster.list(WIDGET).resource_version
    home.cluster.apply(WIDGET, widget(home), "alice")
    # What an earlier test left may still be going, in its own namespace.
    keys = (key_of(event.manifest) for event in home.cluster.watch(WIDGET, None, version, 10.0))
    assert next(key for key in keys if key.namespace == home.namespace) == Key(home.namespace, "one")


def test_a_closed_cluster_ends_its_watches(home: Connections) -> None:
    version = home.other.list(WIDGET, home.namespace).resource_version
    watcher = threading.Thread(target=lambda: list(home.other.watch(WIDGET, home.namespace, version, 300.0)))
    watcher.start()
    time.sleep(0.5)
    home.other.close()
    watcher.join(20)
    assert not watcher.is_alive()


def test_deletion_waits_for_the_finalizer(home: Connections) -> None:
    made = home.cluster.apply(WIDGET, widget(home), "alice")
    held = home.cluster.add_finalizer(WIDGET, made, FINALIZER)
    assert held["metadata"]["finalizers"] == [FINALIZER]
    home.cluster.delete(WIDGET, key_of(made))
    going = read(home)
    assert going["metadata"]["deletionTimestamp"]
    home.cluster.remove_finalizer(WIDGET, going, FINALIZER)
    assert home.cluster.get(WIDGET, key_of(made)) is None


def test_a_finalizer_survives_the_users_apply(home: Connections) -> None:
    made = home.cluster.apply(WIDGET, widget(home, size=1), "alice")
    home.cluster.add_finalizer(WIDGET, made, FINALIZER)
    after = home.cluster.apply(WIDGET, widget(home, size=2), "alice")
    assert after["metadata"]["finalizers"] == [FINALIZER]


def test_a_finalizer_that_is_there_is_not_added_again(home: Connections) -> None:
    made = home.cluster.apply(WIDGET, widget(home), "alice")
    held = home.cluster.add_finalizer(WIDGET, made, FINALIZER)
    assert home.cluster.add_finalizer(WIDGET, held, FINALIZER) == held


def test_a_finalizer_on_what_changed_meanwhile_is_a_conflict(home: Connections) -> None:
    made = home.cluster.apply(WIDGET, widget(home, size=1), "alice")
    home.cluster.apply(WIDGET, widget(home, size=2), "alice")
    with pytest.raises(Conflict):
        home.cluster.add_finalizer(WIDGET, made, FINALIZER)


def test_an_object_that_is_being_deleted_takes_no_new_finalizer(home: Connections) -> None:
    made = home.cluster.apply(WIDGET, widget(home), "alice")
    home.cluster.add_finalizer(WIDGET, made, FINALIZER)
    home.cluster.delete(WIDGET, key_of(made))
    going = read(home)
    with pytest.raises(Invalid):
        home.cluster.add_finalizer(WIDGET, going, "testing.penstock.dev/late")
    home.cluster.remove_finalizer(WIDGET, going, FINALIZER)


def test_deleting_what_is_absent_does_nothing(home: Connections) -> None:
    home.cluster.delete(WIDGET, Key(home.namespace, "absent"))
    assert home.cluster.get(WIDGET, Key(home.namespace, "absent")) is None


def test_deletion_spares_a_namesake_with_another_uid(home: Connections) -> None:
    made = home.cluster.apply(WIDGET, widget(home), "alice")
    with pytest.raises(Conflict):
        home.cluster.delete(WIDGET, key_of(made), uid="00000000-0000-0000-0000-000000000000")
    home.cluster.delete(WIDGET, key_of(made), uid=made["metadata"]["uid"])
    assert home.cluster.get(WIDGET, key_of(made)) is None


def test_what_an_object_owns_goes_with_it(home: Connections) -> None:
    owner = home.cluster.create(CONFIG_MAP, config_map(home, "owner"))
    owned = home.cluster.create(CONFIG_MAP, config_map(home, "owned", (owner,)))
    assert owner_keys(owned, CONFIG_MAP) == (key_of(owner),)
    home.cluster.delete(CONFIG_MAP, key_of(owner))
    assert eventually(lambda: home.cluster.get(CONFIG_MAP, key_of(owned)) is None)


def test_what_is_made_for_an_owner_that_is_gone_goes_too(home: Connections) -> None:
    owner = home.cluster.create(CONFIG_MAP, config_map(home, "owner"))
    home.cluster.delete(CONFIG_MAP, key_of(owner))
    late = home.cluster.create(CONFIG_MAP, config_map(home, "late", (owner,)))
    assert eventually(lambda: home.cluster.get(CONFIG_MAP, key_of(late)) is None)


def test_what_has_another_owner_stays(home: Connections) -> None:
    first = home.cluster.create(CONFIG_MAP, config_map(home, "first"))
    second = home.cluster.create(CONFIG_MAP, config_map(home, "second"))
    shared = home.cluster.create(CONFIG_MAP, config_map(home, "shared", (first, second)))
    home.cluster.delete(CONFIG_MAP, key_of(first))

    def owners() -> list[str]:
        found = home.cluster.get(CONFIG_MAP, key_of(shared))
        assert found is not None
        return [reference["name"] for reference in found["metadata"]["ownerReferences"]]

    assert eventually(lambda: owners() == ["second"])


def test_an_orphaning_deletion_leaves_what_is_owned(home: Connections) -> None:
    owner = home.cluster.create(CONFIG_MAP, config_map(home, "owner"))
    owned = home.cluster.create(CONFIG_MAP, config_map(home, "owned", (owner,)))
    home.cluster.delete(CONFIG_MAP, key_of(owner), propagation=Propagation.ORPHAN)
    assert eventually(lambda: home.cluster.get(CONFIG_MAP, key_of(owner)) is None)
    left = home.cluster.get(CONFIG_MAP, key_of(owned))
    assert left is not None
    assert not left["metadata"].get("ownerReferences")


def test_a_watch_from_a_version_that_is_no_longer_known_is_gone(home: Connections) -> None:
    for size in range(60):
        home.cluster.apply(WIDGET, widget(home, size=size), "alice")
    with pytest.raises(Gone):
        list(home.cluster.watch(WIDGET, home.namespace, "1", 5.0))


def test_an_event_that_repeats_counts_up(home: Connections) -> None:
    about = home.cluster.create(CONFIG_MAP, config_map(home, "one"))
    recorder = EventRecorder(home.cluster, "penstock.dev/operator", "pod-1", settings=EventSettings(update_seconds=0.0))
    for _ in range(3):
        recorder.record(about, News(True, "ModelNotFound", "there is no such file"))
    (event,) = home.cluster.list(EVENT, home.namespace).items
    assert (event["reason"], event["series"]["count"]) == ("ModelNotFound", 3)
    assert event["regarding"]["uid"] == about["metadata"]["uid"]
