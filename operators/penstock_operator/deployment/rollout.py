"""Which revision gets the requests, and which applications there should be. Derived from what runs, never remembered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from penstock import names
from penstock.api.conditions import Reason, facts_of
from penstock.api.pool import WorkerGroup
from penstock.api.rollout import RolloutStatus
from penstock.api.verdicts import Verdict, false
from penstock.routing.leases import Route
from penstock.serving.arguments import Attempt
from penstock_operator.deployment.application import ReplicaNetwork, ServeApplication, adjust, build, replica_bounds
from penstock_operator.deployment.identity import known_settings
from penstock_operator.deployment.number import NumberOwner, owner_of
from penstock_operator.deployment.observed import (
    ApplicationState,
    Observed,
    ObservedApplication,
    ObservedGateway,
    Pool,
    PoolProblem,
)
from penstock_operator.deployment.signers import signers_of
from penstock_operator.deployment.standing import RevisionStanding
from penstock_operator.rollout.arms import is_baseline
from penstock_operator.rollout.phases import serving_revision

FIRST_BACKOFF_SECONDS: Final = 10.0
LONGEST_BACKOFF_SECONDS: Final = 300.0
FORGIVEN_AFTER_SECONDS: Final = 1800.0
"""An attempt this long ago says nothing about the next: the back-off begins anew."""
SURGE_PATIENCE_SECONDS: Final = 30.0
"""A roll goes on with fewer replicas where the rest found no node for this long."""
FULL: Final = 100


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where a model's revisions stand and what follows."""

    wanted: str
    active: str
    """The revision that gets the requests after this step."""
    switched: bool
    """Whether all gateways that answer send requests to `wanted` alone, and none to a replica of another."""
    mine: Mapping[str, ObservedApplication]
    applications: tuple[ServeApplication, ...]
    route: Route
    record: RolloutStatus | None = None
    """Of a rollout that is judged, or was: for the status."""
    wait_seconds: float | None = None
    """Until the next look; None: as the conditions say."""


def backoff(number: int) -> float:
    """Seconds from an attempt to the next: 10, 20, 40 … 300."""
    return min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(number, 10))


def next_attempt_at(attempt: Attempt) -> float:
    """When a failed attempt is followed by another, in epoch seconds."""
    return attempt.attempted_at + backoff(attempt.number)


def plan_rollout(observed: Observed, standing: RevisionStanding, pool: Pool, now: float) -> Rollout:
    """Decide on revisions, applications and route."""
    wanted, mine = standing.wanted, standing.applications
    low, high = replica_bounds(observed.deployment)
    if high == 0:
        return Rollout(wanted, wanted, switched=True, mine=mine, applications=(), route=_resting_route(observed))
    active = active_revision(observed, mine, wanted)
    if active != wanted and _can_take_over(standing, _replicas_needed(mine, active, low, high), low):
        active = wanted
    switched = active == wanted and has_switched(observed, wanted)
    keep = {wanted} if switched else {wanted, active, *revisions_receiving(observed, mine)}
    applications = [_build_present(observed, standing, active, now)]
    applications += [adjust_former(observed, standing, name) for name in mine if name in keep and name != wanted]
    return Rollout(wanted, active, switched, mine, tuple(applications), route_to(observed, standing, pool, active))


def hold_present(observed: Observed, standing: RevisionStanding, pool: Pool, room: int) -> Rollout | None:
    """What runs goes on, with no more replicas than each revision wants now, or than there is room for; nothing new starts.

    Returns:
        None where nothing runs.
    """
    mine = {name: app for name, app in standing.applications.items() if app.running or app.wanted}
    if not mine:
        return None
    active = active_revision(observed, mine, standing.wanted)
    active = active if active in mine else min(mine, key=lambda name: (is_baseline(name), name))
    applications = tuple(
        _with_maximum(adjust_former(observed, standing, name), max(1, app.wanted, room if name == active else 0))
        for name, app in mine.items()
    )
    route = route_to(observed, standing, pool, active)
    return Rollout(standing.wanted, active, switched=False, mine=mine, applications=applications, route=route)


def with_candidate(rollout: Rollout, observed: Observed, standing: RevisionStanding, now: float) -> Rollout:
    """The same rollout, with the application of `observed.deployment` tried beside it, as one that gets no requests.

    It stays declared although it fails, since its failures are known only from its application.
    """
    low, high = replica_bounds(observed.deployment)
    if high == 0:
        return rollout
    revision = standing.wanted
    tried = _with_minimum(build_wanted(observed, standing, now), max(1, low))
    others = tuple(each for each in rollout.applications if each["name"] != tried["name"])
    mine = {name: app for name, app in rollout.mine.items() if name != revision or name == rollout.active}
    return replace(rollout, applications=(*others, tried), mine=mine)


def active_revision(observed: Observed, mine: Mapping[str, ObservedApplication], wanted: str) -> str:
    """The revision that serves: while one is judged beside it, as the status has it; else as the gateways were told."""
    judged = observed.deployment.status.rollout
    if judged is not None and not judged.phase.ended and serving_revision(judged) in mine:
        return serving_revision(judged)
    routed = {
        revision
        for each in observed.gateways
        if isinstance(each, ObservedGateway) and each.route and each.route.declared
        for revision, weight in each.route.declared.revisions.items()
        if weight > 0 and revision in mine and not is_baseline(revision)
    }
    if wanted in routed:
        return wanted
    if routed:
        return min(routed)
    recorded = observed.deployment.status.active_revision
    if recorded in mine and recorded is not None:
        return recorded
    serving = sorted(name for name, app in mine.items() if app.running and not is_baseline(name))
    return wanted if not serving or wanted in serving else serving[0]


def _replicas_needed(mine: Mapping[str, ObservedApplication], active: str, low: int, high: int) -> int:
    """Replicas that the new revision must have: as many as the old one runs, within the bounds."""
    running = mine[active].running if active in mine else 0
    return max(1, low, min(high, running))


def _can_take_over(standing: RevisionStanding, needed: int, low: int) -> bool:
    candidate = standing.applications.get(standing.wanted)
    if candidate is None or candidate.running < max(1, low):
        return False
    listed = candidate.running if standing.without_gateways else standing.count_listed(standing.wanted)
    if candidate.state is ApplicationState.RUNNING and listed >= needed:
        return True
    return candidate.waiting_since is not None and listed >= max(1, low)


def has_switched(observed: Observed, wanted: str) -> bool:
    """Whether all gateways that answer send requests to a revision alone, and none to a replica of another."""
    for each in observed.gateways:
        if not isinstance(each, ObservedGateway):
            continue
        if each.route is None or each.route.declared is None or each.route.declared.revisions != {wanted: FULL}:
            return False
        if not each.route.settled:
            return False
        if any(replica.receiving and replica.revision != wanted for replica in each.route.replicas):
            return False
    return not observed.gateways or any(isinstance(each, ObservedGateway) for each in observed.gateways)


def revisions_receiving(observed: Observed, mine: Mapping[str, ObservedApplication]) -> set[str]:
    """Revisions that a gateway sends requests to, or may, since it is about another way still."""
    return {
        replica.revision
        for each in observed.gateways
        if isinstance(each, ObservedGateway) and each.route
        for replica in each.route.replicas
        if (replica.receiving or not each.route.settled) and replica.revision in mine
    }


def _next_attempt(app: ObservedApplication | None, now: float) -> Attempt:
    if app is None or app.arguments is None:
        return Attempt(number=0, attempted_at=int(now))
    attempt = app.arguments.attempt
    if app.state is not ApplicationState.DEPLOY_FAILED or now < next_attempt_at(attempt):
        return attempt
    old = now - attempt.attempted_at > FORGIVEN_AFTER_SECONDS
    return Attempt(number=0 if old else attempt.number + 1, attempted_at=int(now))


def _build_present(observed: Observed, standing: RevisionStanding, active: str, now: float) -> ServeApplication:
    """The wanted revision's application. While another serves, it starts with as many replicas as that one runs."""
    application, mine = build_wanted(observed, standing, now), standing.applications
    if active == standing.wanted or active not in mine:
        return application
    low, high = replica_bounds(observed.deployment)
    candidate = mine.get(standing.wanted)
    patient = (
        candidate is None or candidate.waiting_since is None or now - candidate.waiting_since < SURGE_PATIENCE_SECONDS
    )
    least = _replicas_needed(mine, active, low, high) if patient else max(1, low)
    return _with_minimum(application, least)


def build_wanted(observed: Observed, standing: RevisionStanding, now: float) -> ServeApplication:
    """The application of the present spec."""
    app = standing.applications.get(standing.wanted)
    return build(
        observed.deployment,
        standing.wanted,
        _next_attempt(app, now),
        _network(observed, app),
        _groups(observed),
        model_digest=standing.models.get(standing.wanted),
        known=known_settings(app),
    )


def adjust_former(observed: Observed, standing: RevisionStanding, revision: str) -> ServeApplication:
    """The application of a former spec."""
    app = standing.applications[revision]
    return adjust(
        dict(app.config or {}),
        observed.deployment,
        observed.network,
        model_digest=standing.models.get(revision),
        known=known_settings(app),
    )


def _network(observed: Observed, app: ObservedApplication | None) -> ReplicaNetwork:
    """How the wanted revision's replicas register, and whose signature they demand of what the deployment's runs made.

    Those that a former release declared keep the token that they have, and those that speak no TLS go on without for as long as
    gateways take them: either would start them anew.
    """
    network = replace(observed.network, signers=signers_of(observed.optimization.runs))
    said = None if app is None else app.arguments
    if said is None or said.owner.uid != observed.deployment.metadata.uid:
        return network
    runs = said.replica
    if network.plain_gateways == runs.gateways and runs.gateways and not runs.gateway_authority:
        network = replace(network, gateways=network.plain_gateways, gateway_authority="")
    if network.former_token == runs.registration_token:
        return replace(network, registration_token=network.former_token)
    return network


def _groups(observed: Observed) -> tuple[WorkerGroup, ...]:
    return observed.pool.groups if isinstance(observed.pool, Pool) else ()


def _with_minimum(application: ServeApplication, least: int) -> ServeApplication:
    deployment: dict[str, Any] = application["deployments"][0]
    scaling = {**deployment["autoscaling_config"], "min_replicas": least}
    scaling["max_replicas"] = max(least, scaling["max_replicas"])
    return {**application, "deployments": [{**deployment, "autoscaling_config": scaling}]}


def _with_maximum(application: ServeApplication, most: int) -> ServeApplication:
    deployment: dict[str, Any] = application["deployments"][0]
    scaling = deployment["autoscaling_config"]
    capped = {name: min(scaling[name], most) for name in ("min_replicas", "max_replicas")}
    return {**application, "deployments": [{**deployment, "autoscaling_config": {**scaling, **capped}}]}


def closed_route(observed: Observed, why: Verdict) -> Route:
    """No revision, and every request is told why."""
    metadata = observed.deployment.metadata
    return Route(namespace=metadata.namespace, model=metadata.name, unavailable=f"{why.reason}: {why.message}")


def _open_route(observed: Observed) -> Route:
    """Requests wait for whichever replica comes first."""
    metadata, spec = observed.deployment.metadata, observed.deployment.spec
    return Route(namespace=metadata.namespace, model=metadata.name, sampling_ratio=float(spec.tracing.sampling_ratio))


def route_without_pool(observed: Observed, pool: PoolProblem) -> Route | None:
    """What requests get while the pool cannot be used; None: what they got before, since its replicas may serve on.

    Gateways are told in any case, so that they know who may ask. Requests wait for a pool that starts; nothing comes of
    waiting for another, so they are told at once.
    """
    if pool.reason is not Reason.SUSPENDED and is_routed(observed):
        return None
    if not facts_of(pool.reason).refuses:
        return _open_route(observed)
    return closed_route(observed, false(pool.reason, pool.message))


def is_routed(observed: Observed) -> bool:
    """Whether a gateway was told of a revision that requests go to."""
    seen = [each.route for each in (*observed.gateways, *observed.joining) if isinstance(each, ObservedGateway)]
    return any(each.declared.revisions for each in seen if each is not None and each.declared is not None)


def _resting_route(observed: Observed) -> Route:
    """Where another than Penstock scales it, and to none at times, requests are held for it to see; else none is."""
    if owner_of(observed.deployment) is NumberOwner.OTHERS and observed.deployment.spec.scaling.min_replicas == 0:
        return _open_route(observed)
    return _open_route(observed).model_copy(update={"max_held_requests": 0, "hold_seconds": 1.0})


def route_to(observed: Observed, standing: RevisionStanding, pool: Pool, target: str) -> Route:
    """All requests to one revision."""
    metadata = observed.deployment.metadata
    low, _ = replica_bounds(observed.deployment)
    application = names.application_name(metadata.namespace, metadata.name, target)
    wake = names.wake_url(pool.serve_address, application) if low == 0 else None
    digests = digests_of(observed, target, standing.models.get(target))
    return _open_route(observed).model_copy(update={"revisions": {target: FULL}, "digests": digests, "wake_url": wake})


def digests_of(observed: Observed, revision: str, digest: str | None) -> dict[str, str]:
    """Which model the revision is.

    Until that is known the first replica decides. Where several start at once, each of several gateways could hear of another
    first one, so they wait.
    """
    several = len(observed.gateways) + len(observed.joining) > 1 and replica_bounds(observed.deployment)[0] > 1
    return {revision: digest or ""} if digest or several else {}
