"""Brings one `OptimizationRun` to its verdict."""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.api.conditions import Reason, RunCondition, facts_of
from penstock.api.meta import ConditionStatus
from penstock.api.optimization import OptimizationRun, OptimizationRunStatus
from penstock.api.reading import read
from penstock.api.verdicts import transitions
from penstock.errors import Invalid
from penstock.names import RUN_MANAGER
from penstock_operator.optimization.directory import OPTIMIZATION_RUN
from penstock_operator.optimization.keys import RunKeys
from penstock_operator.optimization.observe import RunObserver
from penstock_operator.optimization.plan import RunPlan, failed_status, plan_run
from penstock_operator.pool.kinds import NETWORK_POLICY
from penstock_operator.runtime.cluster import JOB, SECRET, Cluster, Key, Manifest, NotFound, create_unless_there
from penstock_operator.runtime.controller import Result
from penstock_operator.runtime.unreadable import tell_unreadable

Record = Callable[[Manifest, bool, str, str], None]
"""Records an event: on which object, whether it is a warning, reason, message."""


class RunReconciler:
    """Observe, plan, apply, one status write.

    Args:
        cluster: where the objects are.
        observer: reads profile, Jobs and the artifact store.
        record: takes events.
        keys: makes the keys of runs.
        clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        cluster: Cluster,
        observer: RunObserver,
        record: Record,
        keys: RunKeys,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._observer = observer
        self._record = record
        self._keys = keys
        self._clock = clock

    def reconcile(self, key: Key) -> Result:
        """See `penstock_operator.runtime.controller.Reconcile`."""
        manifest = self._cluster.get(OPTIMIZATION_RUN, key)
        if manifest is None or manifest["metadata"].get("deletionTimestamp") is not None:
            return Result()  # its Jobs go with it
        try:
            run = read(OptimizationRun, manifest)
        except Invalid as error:
            tell_unreadable(
                self._cluster,
                OPTIMIZATION_RUN,
                manifest,
                error,
                condition=RunCondition.COMPLETE,
                manager=RUN_MANAGER,
                now=self._clock(),
                record=self._record,
            )
            raise
        now = self._clock()
        wanted = plan_run(self._observer.observe(run), now)
        try:
            self._apply(run, wanted)
        except Invalid as error:
            self._write(manifest, run, failed_status(run, Reason.INVALID_SPEC, error.message, now))
            raise
        self._write(manifest, run, wanted.status)
        if wanted.requeue is None:
            return Result()
        return Result(wanted.requeue.after_seconds, wanted.requeue.reason)

    def _apply(self, run: OptimizationRun, wanted: RunPlan) -> None:
        """Create before deleting: a kill between the two leaves a Job too many, which the next run takes away.

        The network is bounded, and the key is there, before there is a pod that could use it.
        """
        secret = self._keys.manifest(run) if wanted.job is not None else None
        if secret is not None:
            create_unless_there(self._cluster, SECRET, secret)
        if wanted.network_policy is not None:
            create_unless_there(self._cluster, NETWORK_POLICY, wanted.network_policy)
        if wanted.job is not None:
            create_unless_there(self._cluster, JOB, wanted.job)
        for name in wanted.delete_jobs:
            self._cluster.delete(JOB, Key(run.metadata.namespace, name))

    def _write(self, manifest: Manifest, run: OptimizationRun, status: OptimizationRunStatus) -> None:
        if status == run.status:
            return
        metadata = run.metadata
        body = {
            "apiVersion": run.api_version,
            "kind": run.kind,
            "metadata": {"name": metadata.name, "namespace": metadata.namespace},
            "status": status.model_dump(mode="json", exclude_none=True),
        }
        try:
            self._cluster.apply_status(OPTIMIZATION_RUN, body, RUN_MANAGER)
        except NotFound:
            return  # deleted meanwhile
        self._announce(manifest, run.status, status)

    def _announce(self, manifest: Manifest, before: OptimizationRunStatus, status: OptimizationRunStatus) -> None:
        """An event for each stage and each change of a condition."""
        if status.progress.stage and status.progress.stage != before.progress.stage:
            note = f"{status.progress.stage}: {status.progress.message}"
            self._record(manifest, False, Reason.OPTIMIZING, note)
        for each in transitions(before.conditions, status.conditions):
            if each.status is not ConditionStatus.UNKNOWN:
                warning = each.status is ConditionStatus.FALSE and facts_of(each.reason).warns
                self._record(manifest, warning, each.reason, f"{each.type}: {each.message}")
