"""One revision is one model, whatever is restarted, and whatever lies at the address meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.deployment.test_optimization_plan import PROFILE, accepted, profiled
from tests.unit.deployment.world import NEW, NOW, World, deployment, gateway, serve_app

from penstock import names
from penstock.api.conditions import DeploymentCondition as Kind
from penstock.api.conditions import Reason
from penstock.api.v1alpha1 import InferenceDeployment, InferenceDeploymentStatus, UpdatePolicy
from penstock.serving.arguments import Attempt, BuildArguments, UserConfig
from penstock_operator.deployment.application import ReplicaNetwork, build
from penstock_operator.deployment.observed import (
    ApplicationState,
    ObservedApplication,
    ObservedGateway,
    OptimizationView,
)
from penstock_operator.deployment.plan import Plan, plan

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
ASLEEP = {"minReplicas": 0, "maxReplicas": 2}
TWO = {"minReplicas": 2, "maxReplicas": 2}


def failed(digest: str) -> str:
    return (
        f'Retrying. Error:\npenstock-failure: {{"reason":"ModelChanged","message":"Now {digest}.","digest":"{digest}"}}'
    )


def app(
    of: InferenceDeployment | None = None,
    noted: str | None = None,
    state: ApplicationState = ApplicationState.RUNNING,
    *,
    attempt: int = 0,
    takes: bool = True,
    **changes: Any,
) -> ObservedApplication:
    of = of or deployment()
    began = Attempt(attempted_at=int(NOW) - 100 + attempt)
    known = None if takes else set(UserConfig().model_dump(mode="json")) - {"digest"}
    config = build(of, names.revision(of), began, ReplicaNetwork(), model_digest=noted, known=known)
    return replace(
        serve_app(of, state, **changes), config=config, arguments=BuildArguments.model_validate(config["args"])
    )


def seen(*digests: str, receiving: bool = True, declared: str | None = None, revision: str = NEW) -> ObservedGateway:
    """A gateway with a replica of each digest."""
    found = gateway({revision: 100}, {revision: len(digests)} if receiving else {}, listed_only={} if receiving else {revision: len(digests)})  # fmt: skip
    assert found.route is not None
    assert found.route.declared is not None
    replicas = [
        row.model_copy(update={"digest": each}) for row, each in zip(found.route.replicas, digests, strict=True)
    ]
    told = {"declared": found.route.declared.model_copy(update={"digests": {revision: declared} if declared else {}})}
    return replace(found, route=found.route.model_copy(update={"replicas": replicas, **told}))


def status(**fields: Any) -> InferenceDeploymentStatus:
    return InferenceDeploymentStatus(active_revision=NEW, **fields)


def told(result: Plan) -> set[str | None]:
    """Which model new replicas are told, and gateways."""
    assert result.applications is not None
    assert result.route is not None
    configs = [each["deployments"][0]["user_config"] for each in result.applications]
    return {each.get("digest", "nothing") for each in configs} | set(result.route.digests.values())


def said(result: Plan, kind: Kind) -> tuple[str, str]:
    assert result.status is not None
    return next((each.status.value, each.reason) for each in result.status.conditions if each.type == kind)


@pytest.mark.parametrize(
    ("world", "model"),
    [
        (World(deployment(), (app(),), (seen(A),)), A),
        (World(deployment(), (app(noted=A),), (seen(A),)), A),
        (World(deployment(), (app(noted=A),), (seen(B),)), A),
        (World(deployment(), (app(),), (seen(B, declared=A),)), A),
        (World(deployment(status=status(digest=A)), (), (gateway({}),)), A),
        (World(deployment(status=status(models={NEW: A})), (), (seen(B),)), A),
        (World(deployment(), (app(),), (seen(B, B, A),)), B),
        (World(deployment(), (app(),), (seen(B, A),)), A),
        (World(deployment(), (app(),), (seen(B), seen(A, A, receiving=False))), B),
    ],
    ids=[
        "nobody was told: what the first replica loaded",
        "what new replicas are told stays",
        "what new replicas are told stays, although one loaded another",
        "what a gateway was told stays, after a kill before the application was",
        "with neither application nor gateway: what the status says, as after the loss of a Ray cluster",
        "the status holds against a replica that came meanwhile",
        "two first ones at once: what most have",
        "as many of each: the same for whoever looks",
        "the one that gets requests already, not one that is merely there",
    ],
)
def test_a_revision_is_one_model(world: World, model: str) -> None:
    assert told(plan(world.observed(), NOW)) == {model}


def test_it_is_kept_while_the_deployment_is_scaled_to_none() -> None:
    gone = deployment(scaling={"replicas": 0}, status=status(digest=A, models={NEW: A}))
    first = plan(World(gone, (), (gateway({}),)).observed(), NOW).status
    assert first is not None
    again = plan(World(deployment(status=first), (), (seen(B),)).observed(), NOW)
    assert told(again) == {A}


@pytest.mark.parametrize(
    ("scaling", "gateways", "digests"),
    [(TWO, 2, {NEW: ""}), (TWO, 1, {}), ({"minReplicas": 1}, 2, {}), (ASLEEP, 2, {})],
    ids=["several of both", "one gateway hears who is first", "one replica is first", "one is woken"],
)
def test_where_several_replicas_could_be_first_no_gateway_sends_requests_before_it_is_told(
    scaling: dict[str, Any], gateways: int, digests: dict[str, str]
) -> None:
    starting = app(running=0, state=ApplicationState.DEPLOYING)
    route = plan(
        World(deployment(scaling=scaling), (starting,), (gateway({NEW: 100}),) * gateways).observed(), NOW
    ).route
    assert route is not None
    assert route.digests == digests


def test_replicas_of_a_release_that_refuses_it_are_not_told() -> None:
    old = World(deployment(), (app(takes=False),), (seen(A),))
    result = plan(old.observed(), NOW)
    assert told(result) == {"nothing", A}
    assert said(result, Kind.READY) == ("True", Reason.READY)


def test_it_is_ready_once_later_replicas_are_told() -> None:
    assert said(plan(World(deployment(), (app(),), (seen(A),)).observed(), NOW), Kind.READY)[0] == "False"
    assert said(plan(World(deployment(), (app(noted=A),), (seen(A),)).observed(), NOW), Kind.READY)[0] == "True"


SCALED_UP = World(deployment(scaling=TWO), (app(noted=A, wanted=2, message=failed(B)),), (seen(A, declared=A),))
WOKEN = World(
    deployment(scaling=ASLEEP, status=status(digest=A)),
    (app(noted=A, state=ApplicationState.UNHEALTHY, running=0, message=failed(B)),),
    (gateway({NEW: 100}),),
)
BESIDE = World(deployment(scaling=TWO), (app(noted=A, running=2, wanted=2),), (seen(A, B, declared=A),))


@pytest.mark.parametrize(
    ("world", "serving"),
    [
        (SCALED_UP, ("True", Reason.REPLICAS_READY)),
        (SCALED_UP.but(apps=(app(noted=A, state=ApplicationState.DEPLOYING, wanted=2, message=failed(B)),)), ("True", Reason.REPLICAS_READY)),
        (SCALED_UP.but(apps=(app(noted=A, state=ApplicationState.DEPLOY_FAILED, wanted=2, message=failed(B)),)), ("True", Reason.REPLICAS_READY)),
        (WOKEN, ("False", Reason.MODEL_CHANGED)),
        (WOKEN.but(apps=(app(noted=A, running=0, message=failed(B)),)), ("False", Reason.MODEL_CHANGED)),
        (BESIDE, ("True", Reason.REPLICAS_READY)),
    ],
    ids=["scaled up", "scaled up by a change of the spec", "Serve gave up", "woken", "just woken", "it runs and gets no request"],
)  # fmt: skip
def test_a_replaced_model_is_said_and_what_serves_goes_on(world: World, serving: tuple[str, str]) -> None:
    result = plan(world.observed(), NOW)
    assert said(result, Kind.READY) == ("False", Reason.MODEL_CHANGED)
    assert said(result, Kind.MODEL_RESOLVED) == ("False", Reason.MODEL_CHANGED)
    assert said(result, Kind.SERVING) == serving
    assert told(result) == {A}
    assert result.status is not None
    assert result.status.digest == A


def test_requests_to_one_that_cannot_wake_are_told_why() -> None:
    route = plan(WOKEN.observed(), NOW).route
    assert route is not None
    assert (route.unavailable or "").startswith("ModelChanged: ")


def test_what_changed_is_over_once_as_many_run_as_are_wanted() -> None:
    healed = SCALED_UP.but(
        apps=(app(noted=A, running=2, wanted=2, message=failed(B)),), gateways=(seen(A, A, declared=A),)
    )
    assert said(plan(healed.observed(), NOW), Kind.READY) == ("True", Reason.READY)


def following(digest: str | None = None, **more: Any) -> InferenceDeployment:
    of = deployment(**more)
    model = of.spec.model.model_copy(update={"update_policy": UpdatePolicy.AUTOMATIC, "digest": digest})
    return of.model_copy(update={"spec": of.spec.model_copy(update={"model": model})})


def revisions(result: Plan) -> set[str]:
    assert result.applications is not None
    return {each["args"]["replica"]["revision"] for each in result.applications}


def test_an_artifact_of_another_model_than_the_one_that_serves_is_not_rolled_out() -> None:
    of = profiled()
    base = names.revision(of)
    run = accepted(of)
    artifact = run.status.artifact
    assert artifact is not None
    for made_from, optimized in ((A, True), ("", True), (B, False)):
        told = {"artifact": artifact.model_copy(update={"made_from": made_from})}
        measured = run.model_copy(update={"status": run.status.model_copy(update=told)})
        view = OptimizationView(profile=PROFILE, runs=(measured,))
        world = World(of, (app(of, noted=A),), (seen(A, revision=base),))
        result = plan(replace(world.observed(), optimization=view), NOW)
        assert (revisions(result) == {base}) is not optimized
        if not optimized:
            assert said(result, Kind.PROFILE_APPLIED) == ("False", Reason.MODEL_CHANGED)
            assert said(result, Kind.SERVING) == ("True", Reason.REPLICAS_READY)


def test_the_policy_is_no_reason_for_other_replicas() -> None:
    assert names.revision(following()) == NEW


def test_with_the_policy_automatic_the_new_model_becomes_a_revision_of_its_own() -> None:
    result = plan(World(following(scaling=TWO), SCALED_UP.apps, SCALED_UP.gateways).observed(), NOW)
    assert revisions(result) == {NEW, names.revision(following(B))}
    assert result.route is not None
    assert result.route.revisions == {NEW: 100}
    assert result.applications is not None
    started = next(each for each in result.applications if each["args"]["replica"]["revision"] != NEW)
    assert started["args"]["replica"]["digest"] is None
    assert started["deployments"][0]["user_config"]["digest"] == B


@pytest.mark.parametrize(
    ("apps", "recorded", "model"),
    [
        ((app(noted=A, message=failed(B), running=0), app(following(B), B, attempt=5)), {}, B),
        ((app(following(B), B, attempt=5),), {}, B),
        ((), {names.revision(following(B)): B}, B),
        ((app(following(B), B, attempt=5, wanted=2, message=failed(C)),), {}, C),
        ((app(following(B), B, attempt=5, wanted=2, message=failed(A)), app(noted=A)), {}, A),
    ],
    ids=[
        "the next stays the next while the first one goes on failing", "the first one is gone",
        "nothing runs, and the status knows", "a third model", "the first model again, as a revision of its own",
    ],
)  # fmt: skip
def test_what_follows_is_found_again_by_whoever_looks(
    apps: tuple[ObservedApplication, ...], recorded: dict[str, str], model: str
) -> None:
    of = following(status=InferenceDeploymentStatus(models=recorded))
    assert names.revision(following(model)) in revisions(plan(World(of, apps).observed(), NOW))


def test_another_address_is_not_followed_from_the_former_one() -> None:
    of = following(model="file:///models/third")
    result = plan(World(of, (app(following(B), B),)).observed(), NOW)
    assert names.revision(of) in revisions(result)
