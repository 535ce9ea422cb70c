"""How a new revision takes over: judged beside the one that serves, or at once, as the spec says and as can be.

What is decided there (`penstock_operator.rollout`) becomes applications and a route here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from penstock import names
from penstock.api.optimization import OptimizationProfileSpec
from penstock.api.rollout import RolloutPhase, RolloutStatus, RolloutType
from penstock.api.v1alpha1 import ModelSource, UpdatePolicy
from penstock.routing.fleet import ORDERS
from penstock.routing.leases import Route, RouteReplica
from penstock.routing.outcomes import SampleSource
from penstock.serving.arguments import Attempt
from penstock_operator.deployment.application import ServeApplication, replica_bounds
from penstock_operator.deployment.judgement import failure_of
from penstock_operator.deployment.observed import ApplicationState, Observed, ObservedApplication, ObservedGateway, Pool
from penstock_operator.deployment.rollout import (
    Rollout,
    active_revision,
    adjust_former,
    build_wanted,
    digests_of,
    has_switched,
    plan_rollout,
    revisions_receiving,
    route_to,
)
from penstock_operator.deployment.served import deployment_of
from penstock_operator.deployment.standing import RevisionStanding, with_spec
from penstock_operator.rollout.arms import ReplicaRange, baseline_of, baseline_size
from penstock_operator.rollout.commands import said_to
from penstock_operator.rollout.machine import RolloutDecision, judge_rollout, least_after
from penstock_operator.rollout.phases import serving_revision
from penstock_operator.rollout.settings import RolloutSettings, rollout_settings
from penstock_operator.rollout.sight import ArmReplica, ArmSight, RolloutSight

_HASHED: Final = 16


def take_over(
    observed: Observed,
    standing: RevisionStanding,
    pool: Pool,
    now: float,
    *,
    model: ModelSource,
    optimized: bool,
    rolled_back: bool,
) -> Rollout:
    """Decide on revisions, applications and route.

    Args:
        observed: with the deployment as it is to be carried out.
        standing: of its revisions.
        pool: where they run.
        now: epoch seconds.
        model: as the user names it, whatever serves.
        optimized: whether what is wanted is what an optimization made.
        rolled_back: whether what an optimization made was rolled back, and is not wanted for that.
    """
    profile = observed.optimization.profile
    profile = profile if isinstance(profile, OptimizationProfileSpec) else None
    settings = rollout_settings(
        observed.deployment.spec.rollout,
        optimized=optimized,
        metric=profile.constraints.accuracy.metric if profile is not None else None,
        samples=_find_samples(model, profile),
    )
    stable = None if rolled_back else _rival(observed, standing, settings)
    if stable is None:
        kept = _kept_record(observed, standing, rolled_back=rolled_back)
        return _settle(observed, replace(plan_rollout(observed, standing, pool, now), record=kept), now)
    decision = judge_rollout(_sight(observed, standing, settings, stable, now))
    return _carry_out(observed, standing, pool, decision, now)


def _find_samples(model: ModelSource, profile: OptimizationProfileSpec | None) -> SampleSource | None:
    """Those that a search would take: the model's own, or the profile's."""
    uri = model.data_uri or (profile.data.storage_uri if profile is not None else None)
    secret = model.credentials_secret_ref
    return SampleSource(uri=uri, credentials=secret.name if secret is not None else None) if uri else None


def _settle(observed: Observed, rollout: Rollout, now: float) -> Rollout:
    """The same, where one that was judged is over: what serves is not scaled down at once."""
    app = rollout.mine.get(rollout.active)
    if rollout.record is None or app is None:
        return rollout
    least = least_after(rollout.record, app.wanted, *replica_bounds(observed.deployment), now)
    return replace(
        rollout,
        applications=tuple(
            _with_range(each, ReplicaRange(max(least, _inner(each)["autoscaling_config"]["min_replicas"])))
            if each["name"] == app.name
            else each
            for each in rollout.applications
        ),
    )


def _rival(observed: Observed, standing: RevisionStanding, settings: RolloutSettings) -> str | None:
    """The revision that the wanted one is judged beside; None: it is not judged."""
    record, wanted, mine = observed.deployment.status.rollout, standing.wanted, standing.applications
    if settings.type is RolloutType.IMMEDIATE or replica_bounds(observed.deployment)[1] == 0:
        return None
    if record is not None and record.candidate == wanted:
        lost = record.stable not in mine and deployment_of(observed.deployment, record.stable) is None
        return None if lost or record.phase is RolloutPhase.PROMOTED else record.stable
    stable = serving_revision(record) if record is not None else active_revision(observed, mine, wanted)
    if stable not in mine:
        stable = active_revision(observed, mine, wanted)
    if stable == wanted or not _serves(mine.get(stable)):
        return None
    # What an optimization made was compared when it was measured: as long as no gateway can do so again, that must do.
    return stable if settings.named or _is_comparable(observed) else None


def _serves(app: ObservedApplication | None) -> bool:
    """Whether it serves, or sleeps and would."""
    return app is not None and (app.running > 0 or (app.state is ApplicationState.RUNNING and app.wanted == 0))


def _kept_record(observed: Observed, standing: RevisionStanding, *, rolled_back: bool) -> RolloutStatus | None:
    """What the status goes on to say of a rollout while none is judged."""
    record = observed.deployment.status.rollout
    if record is None or rolled_back:
        return record
    if record.candidate == standing.wanted and record.phase is RolloutPhase.PROMOTED:
        return record
    if replica_bounds(observed.deployment)[1] == 0:
        return record
    follows = observed.deployment.spec.model.update_policy is UpdatePolicy.AUTOMATIC
    back = record.phase is RolloutPhase.ROLLED_BACK and follows and standing.wanted == record.stable
    return record if back else None


def _is_comparable(observed: Observed) -> bool:
    """Whether all gateways that answer can compare revisions."""
    told = [each.features for each in observed.gateways if isinstance(each, ObservedGateway)]
    return bool(told) and all(ORDERS in features for features in told)


def _sight(
    observed: Observed, standing: RevisionStanding, settings: RolloutSettings, stable: str, now: float
) -> RolloutSight:
    spare = observed.spare_replicas
    wanted, baseline, record = standing.wanted, baseline_of(stable), observed.deployment.status.rollout
    same = record is not None and (record.candidate, record.stable) == (wanted, stable)
    low, high = replica_bounds(observed.deployment)
    arms = {
        revision: _arm(standing, revision, app)
        for revision, app in standing.applications.items()
        if revision in (wanted, stable, baseline)
    }
    return RolloutSight(
        candidate=wanted,
        stable=stable,
        baseline=baseline,
        settings=settings,
        record=record if same else None,
        arms=arms,
        low=low,
        high=high,
        comparable=_is_comparable(observed),
        switched=has_switched(observed, wanted),
        room_for_baseline=spare is None
        or spare >= baseline_size(max(1, record.replicas if same and record else 0), shared=settings.shares_requests),
        command=said_to(observed.deployment),
        now=now,
    )


def _arm(standing: RevisionStanding, revision: str, app: ObservedApplication) -> ArmSight:
    failure = failure_of(app)
    return ArmSight(
        declared=_least_declared(app),
        running=app.running,
        wanted=app.wanted,
        placed=app.wanted > 0 and not app.building and app.waiting_since is None,
        waiting_since=app.waiting_since,
        failure=failure.message if failure is not None else "",
        listed=app.running if standing.without_gateways else standing.count_listed(revision),
        made_of=_made_of(app),
        replicas=_replicas(each for told in standing.replicas for each in told if each.revision == revision),
    )


def _replicas(rows: Iterable[RouteReplica]) -> dict[str, ArmReplica]:
    """Each tells every gateway the same, one a moment before the other: what is newest counts."""
    found: dict[str, ArmReplica] = {}
    for row in rows:
        before = found.get(row.replica_id)
        told = [each for each in (row.outcomes, before.outcomes if before else None) if each is not None]
        found[row.replica_id] = ArmReplica(
            outcomes=max(told, key=lambda each: (each.age_seconds, each.answered + each.failed), default=None),
            in_flight=max(row.stats.in_flight, before.in_flight if before else 0.0),
            idle_seconds=min(row.stats.idle_seconds, before.idle_seconds if before else row.stats.idle_seconds),
        )
    return found


def _inner(config: ServeApplication) -> dict[str, Any]:
    """Its one Serve deployment."""
    return next(
        (dict(each) for each in config.get("deployments", ()) if each.get("name") == names.SERVE_DEPLOYMENT), {}
    )


def _least_declared(app: ObservedApplication) -> int:
    scaling = _inner(dict(app.config or {})).get("autoscaling_config") or {}
    return int(scaling.get("min_replicas") or 0)


def _made_of(app: ObservedApplication) -> str:
    """A hash of what starts its replicas anew when it changes."""
    config = dict(app.config or {})
    content = [config.get("args"), _inner(config).get("ray_actor_options")]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_HASHED]


def _carry_out(
    observed: Observed, standing: RevisionStanding, pool: Pool, decision: RolloutDecision, now: float
) -> Rollout:
    """The applications and the route that were decided on."""
    mine, record = standing.applications, decision.record
    applications = [
        _with_range(_application(observed, standing, revision, record.stable, now), size)
        for revision, size in decision.replicas.items()
    ]
    # Whatever a gateway may still send requests to stays as it is.
    leaving = sorted(revisions_receiving(observed, mine) - decision.replicas.keys())
    applications += [_as_it_is(observed, standing, revision) for revision in leaving]
    return Rollout(
        standing.wanted,
        decision.active,
        switched=decision.active == standing.wanted and has_switched(observed, standing.wanted),
        mine=mine,
        applications=tuple(applications),
        route=_route(observed, standing, pool, decision),
        record=record,
        wait_seconds=decision.wait_seconds,
    )


def _application(
    observed: Observed, standing: RevisionStanding, revision: str, stable: str, now: float
) -> ServeApplication:
    if revision == standing.wanted:
        return build_wanted(observed, standing, now)
    if revision == stable:
        return _stable(observed, standing, stable, now)
    if revision in standing.applications:
        return adjust_former(observed, standing, revision)
    return _baseline(observed, _stable(observed, standing, stable, now), revision, now)


def _stable(observed: Observed, standing: RevisionStanding, revision: str, now: float) -> ServeApplication:
    """As it is; where the pool has lost it, or it does not start after such a loss, made anew."""
    app, former = standing.applications.get(revision), deployment_of(observed.deployment, revision)
    gone = app is None or (app.state is ApplicationState.DEPLOY_FAILED and not app.running)
    if former is not None and gone:
        return build_wanted(replace(observed, deployment=former), with_spec(standing, former), now)
    return adjust_former(observed, standing, revision)


def _baseline(observed: Observed, stable: ServeApplication, revision: str, now: float) -> ServeApplication:
    """An application that is as the stable one, but for its name."""
    metadata = observed.deployment.metadata
    name = names.application_name(metadata.namespace, metadata.name, revision)
    attempt = Attempt(number=0, attempted_at=int(now)).model_dump(mode="json")
    replica = {**stable["args"]["replica"], "revision": revision}
    args = {**stable["args"], "attempt": attempt, "replica": replica}
    return {**stable, "name": name, "route_prefix": names.route_prefix(name), "args": args}


def _with_range(application: ServeApplication, size: ReplicaRange) -> ServeApplication:
    """With so many replicas. The policy stays, since replicas are started anew where it comes or goes."""
    inner: dict[str, Any] = application["deployments"][0]
    scaling = inner["autoscaling_config"]
    most = scaling["max_replicas"] if size.most is None else size.most
    sized = {**scaling, "min_replicas": size.least, "max_replicas": max(1, size.least, most)}
    return {**application, "deployments": [{**inner, "autoscaling_config": sized}]}


def _as_it_is(observed: Observed, standing: RevisionStanding, revision: str) -> ServeApplication:
    app = standing.applications[revision]
    size = max(1, app.wanted)
    return _with_range(adjust_former(observed, standing, revision), ReplicaRange(size, size))


def _route(observed: Observed, standing: RevisionStanding, pool: Pool, decision: RolloutDecision) -> Route:
    record = decision.record
    route = route_to(observed, standing, pool, decision.active)
    digests = dict(route.digests)
    model = standing.models.get(record.stable)
    known = {**standing.models, **({baseline_of(record.stable): model} if model else {})}
    for revision in decision.weights:
        digests |= digests_of(observed, revision, known.get(revision))
    return route.model_copy(
        update={"revisions": dict(decision.weights), "digests": digests, "comparison": decision.comparison}
    )
