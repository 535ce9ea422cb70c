"""Brings one `OptimizationRun` to its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from penstock.api.conditions import Reason, RunCondition
from penstock.api.meta import ConditionStatus
from penstock.api.optimization import OptimizationRun, OptimizationRunStatus
from penstock.api.verdicts import transitions
from penstock.errors import Unavailable
from penstock.names import RUN_MANAGER
from penstock_operator.kinds import OPTIMIZATION_RUN
from penstock_operator.optimization.keys import RunKeys
from penstock_operator.optimization.observe import RunObserver
from penstock_operator.optimization.observed import ObservedRun
from penstock_operator.optimization.plan import RunPlan, failed_status, plan_run, refused_run_status
from penstock_operator.pool.kinds import NETWORK_POLICY
from penstock_operator.runtime.cluster import JOB, SECRET, Cluster, Key, Manifest, create_if_absent, is_refusal
from penstock_operator.runtime.loop.news import News, news_of
from penstock_operator.runtime.loop.reconciler import Applied, Failure, Reconciler

_Done: TypeAlias = Applied[OptimizationRunStatus]


class RunReconciler(Reconciler[OptimizationRun, OptimizationRunStatus, ObservedRun, RunPlan]):
    """See `Reconciler`.

    Args:
        cluster: where the objects are.
        observer: reads profile, Jobs and the artifact store.
        keys: makes the keys of runs.
    """

    kind = OPTIMIZATION_RUN
    model = OptimizationRun
    condition = RunCondition.COMPLETE
    manager = RUN_MANAGER

    def __init__(self, cluster: Cluster, observer: RunObserver, keys: RunKeys) -> None:
        self._cluster = cluster
        self._observer = observer
        self._keys = keys

    def end(self, manifest: Manifest) -> _Done:
        """Its Jobs go with it."""
        del manifest
        return Applied()

    def observe(self, resource: OptimizationRun) -> ObservedRun:
        """See `Reconciler`."""
        return self._observer.observe(resource)

    def plan(self, observed: ObservedRun, now: float) -> RunPlan:
        """See `penstock_operator.optimization.plan`."""
        return plan_run(observed, now)

    def apply(self, observed: ObservedRun, plan: RunPlan, now: float) -> _Done:
        """Create before deleting: a kill between the two leaves a Job too many, which the next look takes away.

        The network is bounded, and the key is there, before there is a pod that could use it.
        """
        del now
        run = observed.run
        secret = self._keys.manifest(run) if plan.job is not None else None
        if secret is not None:
            create_if_absent(self._cluster, SECRET, secret)
        if plan.network_policy is not None:
            create_if_absent(self._cluster, NETWORK_POLICY, plan.network_policy)
        if plan.job is not None:
            create_if_absent(self._cluster, JOB, plan.job)
        for name in plan.delete_jobs:
            self._cluster.delete(JOB, Key(run.metadata.namespace, name))
        return Applied(plan.status, plan.requeue)

    def explain(self, failure: Failure[OptimizationRun, ObservedRun, RunPlan]) -> OptimizationRunStatus | None:
        """What was planned is refused for good, or by a policy that may be mended: then it is tried again."""
        if is_refusal(failure.error):
            return refused_run_status(failure.resource, failure.error.message, failure.now)
        if failure.plan is None or isinstance(failure.error, Unavailable):
            return super().explain(failure)
        return failed_status(failure.resource, Reason.INVALID_SPEC, failure.error.message, failure.now)

    def announce(self, before: OptimizationRunStatus, after: OptimizationRunStatus) -> Iterator[News]:
        """Each stage, and each change of a condition."""
        stage = after.progress.stage
        if stage and stage != before.progress.stage:
            yield News(warning=False, reason=Reason.OPTIMIZING, message=f"{stage}: {after.progress.message}")
        for each in transitions(before.conditions, after.conditions):
            if each.status is not ConditionStatus.UNKNOWN:
                yield news_of(each, f"{each.type}: {each.message}")
