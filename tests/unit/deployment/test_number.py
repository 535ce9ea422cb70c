"""The number in a spec: who wrote it, what is written there, and what follows of another's."""

from __future__ import annotations

from typing import Any

import pytest
from tests.telling import Telling
from tests.unit.deployment.world import NEW, World, deployment, gateway, serve_app

from penstock import names
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.scaling.policy import ScalingRule
from penstock_operator.deployment.number import NumberOwner, NumberWrite, number_manifest, number_to_write, owner_of
from penstock_operator.deployment.plan import Plan, plan

OURS, SPEC, OTHERS = NumberOwner.PENSTOCK, NumberOwner.SPEC, NumberOwner.OTHERS
BY_LOAD = {"minReplicas": 1, "maxReplicas": 4}


def numbered(number: int | None, mark: str | None, scaling: dict[str, Any] | None = None) -> InferenceDeployment:
    of = deployment(scaling=scaling or BY_LOAD)
    metadata = of.metadata.model_copy(
        update={"annotations": {} if mark is None else {names.REPLICAS_ANNOTATION: mark}, "resource_version": "7"}
    )
    return of.model_copy(update={"metadata": metadata, "spec": of.spec.model_copy(update={"replicas": number})})


def look(of: InferenceDeployment, *, running: int = 3) -> Plan:
    app = serve_app(of, running=running, wanted=running)
    return plan(World(of, (app,) if running else (), (gateway({NEW: 100}, {NEW: running}),)).observed(), 1000.0)


@pytest.mark.parametrize(
    ("name", "of", "owner", "written"),
    [
        ("none yet", numbered(None, None), OURS, 3),
        ("ours, of before", numbered(2, "2"), OURS, 3),
        ("ours, and present", numbered(3, "3"), OURS, None),
        ("ours was taken out", numbered(None, "2"), OURS, 3),
        ("another's", numbered(2, None), OTHERS, None),
        ("another's is the one that load wants, too", numbered(3, None), OTHERS, None),
        ("the spec's", numbered(None, None, {"replicas": 5}), SPEC, 5),
        ("the spec's, written", numbered(5, "5", {"replicas": 5}), SPEC, None),
        ("another's, before the spec had one", numbered(2, None, {"replicas": 5}), SPEC, 5),
    ],
)
def test_the_number_is_written_where_it_is_ours(
    name: str, of: InferenceDeployment, owner: NumberOwner, written: int | None
) -> None:
    assert owner_of(of) is owner, name
    assert number_to_write(of, 3) == (None if written is None else NumberWrite(written)), name


def test_what_another_wrote_stays_its_own_though_it_comes_to_be_our_last_number() -> None:
    given_up = number_to_write(numbered(2, "1"), 3)
    assert given_up == NumberWrite(None)
    assert number_manifest(numbered(2, "1"), given_up).keys() == {"apiVersion", "kind", "metadata"}
    assert owner_of(numbered(1, None)) is OTHERS


def test_nothing_is_written_into_a_version_that_was_not_seen() -> None:
    of = numbered(None, None)
    assert number_manifest(of, NumberWrite(3))["metadata"]["resourceVersion"] == "7"
    fresh = of.model_copy(update={"metadata": of.metadata.model_copy(update={"finalizers": ()})})
    assert number_to_write(fresh, 3) is None


@pytest.mark.parametrize(
    ("name", "number", "running", "least", "written"),
    [
        ("as Serve runs them", None, 3, 1, 3),
        ("what it starts with, before Serve runs any", None, 0, 2, 2),
        ("one, where it may have none", None, 0, 0, 1),
        ("what it was, while Serve has it no more", 4, 0, 1, None),
    ],
)
def test_the_number_is_that_of_serve(
    name: str, number: int | None, running: int, least: int, written: int | None
) -> None:
    mark = None if number is None else str(number)
    made = look(numbered(number, mark, {"minReplicas": least, "maxReplicas": 4}), running=running)
    assert made.number == (None if written is None else NumberWrite(written)), name


def test_ours_stands_aside_and_says_so() -> None:
    made = look(numbered(2, None), running=2)
    assert made.status is not None
    assert made.applications is not None
    config = made.applications[0]["deployments"][0]["autoscaling_config"]
    assert (config["min_replicas"], config["max_replicas"]) == (2, 2)
    assert made.status.replicas.reason == Telling("2 spec.replicas set from outside taken out")
    assert made.status.scaling_history[-1].rule is ScalingRule.OUTSIDE


@pytest.mark.parametrize(
    ("name", "of", "held"),
    [
        ("another's none, where none may run", numbered(0, None, {"minReplicas": 0, "maxReplicas": 4}), 1024),
        ("another's none, where some must", numbered(0, None), 0),
        ("the spec's", numbered(0, "0", {"replicas": 0, "minReplicas": 0}), 0),
    ],
)
def test_requests_are_held_at_none_for_another_to_see_them(name: str, of: InferenceDeployment, held: int) -> None:
    route = look(of, running=0).route
    assert route is not None
    assert (route.max_held_requests, route.wake_url) == (held, None), name
