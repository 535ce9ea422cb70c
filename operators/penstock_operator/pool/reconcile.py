"""Says of a `ServingPool` whether it can be used, makes those that are managed, and drops what belongs to nobody."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

from penstock.api.conditions import PoolCondition, Reason
from penstock.api.pool import ServingPool, ServingPoolStatus
from penstock.api.verdicts import false, reason_of, unknown
from penstock.errors import Invalid, Unavailable
from penstock.names import POOL_MANAGER
from penstock.serving.arguments import Owner
from penstock_operator.deployment.observed import PoolProblem
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.pool import found as finding
from penstock_operator.pool.defaults import DefaultPools
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.pool.found import PROBLEM_SECONDS, RESYNC, Found, next_look, pool_status
from penstock_operator.pool.managed import ManagedPools
from penstock_operator.pool.observed import PoolObserved, RayClusterView
from penstock_operator.pool.plan import PoolPlan, plan
from penstock_operator.pool.release import PoolRelease
from penstock_operator.pool.status import judge_start, report
from penstock_operator.pool.users import deployments_of
from penstock_operator.pool.writer import PoolBusy, PoolWriter
from penstock_operator.runtime.cluster import FORBIDDEN, Cluster, Key, Manifest
from penstock_operator.runtime.loop.news import News
from penstock_operator.runtime.loop.reconciler import Applied, Failure, Reconciler
from penstock_operator.runtime.loop.requeue import Requeue

log = logging.getLogger(__name__)

_Done: TypeAlias = Applied[ServingPoolStatus]
_Plan: TypeAlias = tuple[PoolObserved, PoolPlan] | PoolWriter | PoolProblem


@dataclass(frozen=True, slots=True)
class PoolSight:
    """A pool, and what it stands on."""

    pool: ServingPool
    on: PoolObserved | PoolWriter | PoolProblem
    """RayClusters of our own; a Ray cluster that someone else runs; why there is neither."""


class PoolReconciler(Reconciler[ServingPool, ServingPoolStatus, PoolSight, _Plan]):
    """See `Reconciler`.

    Args:
        cluster: where the objects are.
        pools: finds Ray clusters.
        managed: makes those of managed pools.
        defaults: makes pools where there is none.
        release: ends pools whose state lies in a Redis.
    """

    kind = SERVING_POOL
    model = ServingPool
    condition = PoolCondition.READY
    manager = POOL_MANAGER

    def __init__(
        self,
        cluster: Cluster,
        pools: PoolDirectory,
        managed: ManagedPools,
        *,
        defaults: DefaultPools,
        release: PoolRelease,
    ) -> None:
        self._cluster = cluster
        self._pools = pools
        self._managed = managed
        self._defaults = defaults
        self._release = release

    def settle_absence(self, key: Key) -> Requeue | None:
        """See `DefaultPools`."""
        again = self._defaults.make(key)
        return None if again is None else Requeue(again, "deployments name a pool that was deleted")

    def end(self, manifest: Manifest) -> _Done:
        """See `PoolRelease`."""
        return self._release.carry_out(manifest)

    def needs_finalizer(self, resource: ServingPool) -> bool:
        """See `PoolRelease`."""
        managed = resource.spec.managed
        return managed is not None and managed.gcs_fault_tolerance is not None

    def observe(self, resource: ServingPool) -> PoolSight:
        """See `Reconciler`."""
        if resource.spec.managed is None:
            return PoolSight(resource, self._pools.writer(resource))
        return PoolSight(resource, self._managed.observe(resource))

    def plan(self, observed: PoolSight, now: float) -> _Plan:
        """See `penstock_operator.pool.plan`. Where there are no RayClusters of our own there is nothing to plan."""
        on = observed.on
        return (on, plan(on, now)) if isinstance(on, PoolObserved) else on

    def apply(self, observed: PoolSight, plan: _Plan, now: float) -> _Done:
        """See `Reconciler`."""
        pool = observed.pool
        if isinstance(plan, tuple):
            seen, wanted = plan
            problem = self._managed.apply(seen, wanted)
            if problem is None:
                serving = _serving_cluster(seen, wanted)
                found = self._look(seen, wanted, serving)
                return Applied(self._status(pool, found, now), next_look(wanted, found, serving))
            plan = problem
        found = self._ask_existing(plan) if isinstance(plan, PoolWriter) else Found.from_problem(plan)
        again = RESYNC if found.seen is not None else Requeue(PROBLEM_SECONDS, found.ready.message)
        return Applied(self._status(pool, found, now), again)

    def announce(self, before: ServingPoolStatus, after: ServingPoolStatus) -> Iterator[News]:
        """See `penstock_operator.pool.found`."""
        return finding.news(before, after)

    def explain(self, failure: Failure[ServingPool, PoolSight, _Plan]) -> ServingPoolStatus | None:
        """What serves goes on, and is told as ever."""
        pool, error, plan = failure.resource, failure.error, failure.plan
        if isinstance(error, Invalid):
            refused = false(Reason.INVALID_SPEC, error.message)
            return self._status(pool, Found(refused, progressing=refused), failure.now)
        if error.reason == Reason.PENDING:
            return None  # the lease is lost: who leads now tells
        refused = false(reason_of(error), error.message)
        if not isinstance(plan, tuple):
            # Nothing was looked at: neither that it can be used is known, nor that it cannot.
            found = Found.from_status(pool.status, unknown(refused.reason, refused.message), refused)
        elif (serving := _serving_cluster(*plan)) is None:
            found = Found.from_status(pool.status, refused, refused)
        else:
            looked = self._look(*plan, serving)
            found = replace(looked, progressing=refused, candidate=pool.status.candidate_ray_cluster)
        return self._status(pool, found, failure.now)

    def _status(self, pool: ServingPool, found: Found, now: float) -> ServingPoolStatus:
        key = Key(pool.metadata.namespace, pool.metadata.name)
        users = deployments_of(key, self._cluster.list(INFERENCE_DEPLOYMENT, key.namespace).items)
        return pool_status(pool, found, len(users), now)

    def _look(self, observed: PoolObserved, wanted: PoolPlan, serving: RayClusterView | None) -> Found:
        """What there is to say of a managed pool, once the plan is applied."""
        pool = observed.pool
        reported = report(observed, serving) if serving is not None else None
        head = reported.head if reported is not None else None
        found = Found(
            judge_start(observed, serving, head, wanted.progressing.message),
            progressing=wanted.progressing,
            address=self._pools.writer_at(pool, wanted.serving).client.address if wanted.serving else None,
            ray_cluster=wanted.serving,
            candidate=wanted.candidate,
            change=wanted.change or pool.status.change,
            groups=reported.groups if reported is not None else (),
            suspended=pool.spec.suspend,
        )
        if serving is None or pool.spec.suspend:
            return found
        if not serving.head_ready:
            return found.with_start()
        try:
            return self._ask(self._pools.writer_at(pool, serving.name), found)
        except Unavailable as error:
            reason = reason_of(error) if serving.ever_ready else Reason.STARTING_POOL
            return replace(found, ready=false(reason, error.message)).with_start()

    def _ask_existing(self, writer: PoolWriter) -> Found:
        unasked = Found(unknown(Reason.PENDING, ""))
        try:
            return self._ask(writer, unasked)
        except Unavailable as error:
            return replace(unasked, ready=false(reason_of(error), error.message))

    def _ask(self, writer: PoolWriter, found: Found) -> Found:
        """Ray's version and nodes; and what belongs to nobody goes. Raises `Unavailable`."""
        version, nodes = writer.client.version(), writer.client.nodes()
        self._drop_orphans(writer)
        return found.with_answer(version, nodes)

    def _drop_orphans(self, writer: PoolWriter) -> None:
        """An owner is gone only if the API says so of it, one by one: a list may be partial, an answer is not."""
        try:
            owners = {each.arguments.owner for each in writer.applications() if each.arguments is not None}
        except PoolBusy:
            return  # the pool has answered, and is looked at again
        try:
            gone = {owner for owner in owners if self._is_gone(owner)}
        except Unavailable as error:
            log.info("whose applications these are must wait: %s", error.message)
            return
        if gone:
            with suppress(PoolBusy):
                writer.drop_orphans(lambda owner: owner in gone)

    def _is_gone(self, owner: Owner) -> bool:
        try:
            return self._cluster.get(INFERENCE_DEPLOYMENT, Key(owner.namespace, owner.name)) is None
        except Unavailable as error:
            if error.reason != FORBIDDEN:
                raise
            return False  # of a namespace that is another operator's


def _serving_cluster(observed: PoolObserved, wanted: PoolPlan) -> RayClusterView | None:
    return next((each for each in observed.clusters if each.name == wanted.serving and not each.deleting), None)
