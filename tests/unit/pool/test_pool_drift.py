"""What another hand changed of a pool's objects is found, and nothing that only looks like it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.pool.pools import NOW, manifest_of, observed, pool, running

from penstock.api.meta import Manifest
from penstock_operator.pool.drift import AGAIN_SECONDS, changed_ray_cluster, differences
from penstock_operator.pool.observed import view
from penstock_operator.pool.plan import PoolPlan, plan

SAME = [
    ("what others add", {"a": 1}, {"a": 1, "protocol": "TCP"}),
    ("another spelling of a quantity", {"cpu": "0.5", "memory": "1024Mi"}, {"cpu": "500m", "memory": "1Gi"}),
    ("a number that was a text", {"cpu": "4"}, {"cpu": 4}),
    ("nothing in the place of what is empty", {"env": [], "volumes": {}, "on": False, "deep": {"x": None}}, {}),
]
OTHER = [
    ("another number", {"a": {"b": 1}}, {"a": {"b": 2}}, ["spec.a.b is 2, not 1"]),
    ("a value that is gone", {"a": "x"}, {}, ["spec.a is absent, not x"]),
    ("one more of a list", {"env": [{"name": "A"}]}, {"env": [{"name": "A"}, {"name": "B"}]}, ["spec.env is"]),
    (
        "a named item of a list",
        {"env": [{"name": "A", "value": "1"}]},
        {"env": [{"name": "A", "value": "b"}]},
        ["spec.env[A].value is b, not 1"],
    ),
    ("yes and no", {"on": True}, {"on": False}, ["spec.on is False, not True"]),
]


@pytest.mark.parametrize(("wanted", "found"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_no_change_is(wanted: Any, found: Any) -> None:
    assert differences(wanted, found, "spec") == ()


@pytest.mark.parametrize(("wanted", "found", "told"), [row[1:] for row in OTHER], ids=[row[0] for row in OTHER])
def test_a_change_is(wanted: Any, found: Any, told: list[str]) -> None:
    assert [
        str(each)[: len(start)] for each, start in zip(differences(wanted, found, "spec"), told, strict=True)
    ] == told


def edited(change: Callable[[Manifest], object]) -> Manifest:
    """The pool's RayCluster, after somebody changed it."""
    manifest = manifest_of(pool())
    manifest["status"] = {
        "conditions": [{"type": kind, "status": "True"} for kind in ("HeadPodReady", "RayClusterProvisioned")]
    }
    changed = copy.deepcopy(manifest)
    change(changed["spec"])
    return changed


def planned(manifest: Manifest, now: float = NOW) -> PoolPlan:
    return plan(observed(pool(), view(manifest)), now)


def bound(spec: Manifest) -> None:
    spec["workerGroupSpecs"][0]["maxReplicas"] = 1


def image(spec: Manifest) -> None:
    spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["image"] = "mistyped:1"


EDITS = [
    ("a bound", bound, "spec.workerGroupSpecs[cpu].maxReplicas is 1, not 3"),
    ("an image", image, "spec.workerGroupSpecs[cpu].template.spec.containers[ray-worker].image is mistyped:1"),
    ("a group that is gone", lambda spec: spec.update(workerGroupSpecs=[]), "spec.workerGroupSpecs is []"),
    (
        "the autoscaler switched off",
        lambda spec: spec.update(enableInTreeAutoscaling=False),
        "spec.enableInTreeAutoscaling is False",
    ),
    ("its pods given back, as by a queue", lambda spec: spec.update(suspend=True), "spec.suspend is True, not False"),
]


@pytest.mark.parametrize(("edit", "told"), [row[1:] for row in EDITS], ids=[row[0] for row in EDITS])
def test_an_edit_by_hand_is_put_right_and_told(edit: Callable[[Manifest], object], told: str) -> None:
    wanted = planned(edited(edit))
    (applied,) = wanted.apply
    assert applied["metadata"]["resourceVersion"] == "17", "the autoscaler may have written since"
    assert not changed_ray_cluster(manifest_of(pool())["spec"], applied["spec"])
    assert wanted.progressing.reason == "ChangingInPlace"
    assert told in wanted.progressing.message


def test_what_the_autoscaler_writes_is_nobodys_edit() -> None:
    def scale(spec: Manifest) -> None:
        spec["workerGroupSpecs"][0] |= {"replicas": 2, "scaleStrategy": {"workersToDelete": ["w"]}}

    assert planned(edited(scale)).apply == ()
    assert plan(observed(pool(), running(pool())), NOW).apply == (), "and nothing is applied to what is as it should be"


def test_a_queue_that_gives_its_pods_back_again_is_not_fought_and_gets_the_pods_of_a_suspended_pool_no_more() -> None:
    for wanted in (False, True):
        of = pool(suspend=wanted)
        taken = manifest_of(of)
        taken["spec"]["suspend"] = not wanted
        first = plan(observed(of, view(taken)), NOW)
        (applied,) = first.apply
        assert applied["spec"]["suspend"] is wanted
        taken["metadata"]["annotations"] = applied["metadata"]["annotations"]
        held = plan(observed(of, view(taken)), NOW + 5)
        assert held.apply == ()
        assert held.progressing.reason == "ChangedByAnother"
        assert f"spec.suspend is {not wanted}, not {wanted}" in held.progressing.message


def test_who_changes_it_back_at_once_is_told_of_and_not_fought_without_end() -> None:
    (applied,) = planned(edited(bound)).apply
    again = edited(bound)
    again["metadata"]["annotations"] = applied["metadata"]["annotations"]
    held = planned(again, NOW + 5)
    assert held.apply == ()
    assert (held.progressing.status, held.progressing.reason) == ("False", "ChangedByAnother")
    assert "maxReplicas is 1, not 3" in held.progressing.message
    assert not held.settled, "it is looked at again"
    assert planned(again, NOW + AGAIN_SECONDS + 1).apply, "whoever it was may have stopped"
    image(again["spec"])
    assert planned(again, NOW + 5).apply, "another edit is another matter"
