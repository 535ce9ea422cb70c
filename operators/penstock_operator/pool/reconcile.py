"""Says of a `ServingPool` whether it can be used, makes those that are managed, and drops what belongs to nobody."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

from penstock.api.conditions import PoolCondition, Reason, facts_of
from penstock.api.meta import ConditionStatus
from penstock.api.pool import GroupStatus, PoolCapacity, PoolChange, ServingPool, ServingPoolStatus
from penstock.api.quantity import readable_bytes
from penstock.api.reading import read
from penstock.api.verdicts import Verdict, condition, false, merge_alike, reason_of, transitions, true, unknown
from penstock.errors import Invalid, Unavailable
from penstock.names import ACCELERATOR_LABEL, POOL_MANAGER
from penstock.serving.arguments import Owner
from penstock_operator.deployment.observed import Node, PoolProblem
from penstock_operator.pool.defaults import DefaultPools
from penstock_operator.pool.directory import INFERENCE_DEPLOYMENT, SERVING_POOL, PoolDirectory
from penstock_operator.pool.managed import ManagedPools
from penstock_operator.pool.observed import PoolObserved, RayClusterView
from penstock_operator.pool.plan import PoolPlan, plan
from penstock_operator.pool.release import PoolRelease
from penstock_operator.pool.status import judge_start, missing_pods, report
from penstock_operator.pool.users import deployments_of
from penstock_operator.pool.writer import PoolBusy, PoolWriter
from penstock_operator.runtime.cluster import FORBIDDEN, Cluster, Key, Manifest, NotFound
from penstock_operator.runtime.controller import Result
from penstock_operator.runtime.unreadable import tell_unreadable

log = logging.getLogger(__name__)

_RESYNC_SECONDS: Final = 60.0
_PROBLEM_SECONDS: Final = 10.0
_WAITING_SECONDS: Final = 4.0
_MOVING_SECONDS: Final = 2.0
_TURN_SECONDS: Final = 15.0
"""After a release nearly all pools wait for their turn; those whose turn it is must be looked at more often."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the status says."""

    ready: Verdict
    seen: tuple[str, Sequence[Node]] | None = None
    """Ray's version and nodes; None: it was not asked or did not answer."""
    progressing: Verdict | None = None
    address: str | None = None
    ray_cluster: str | None = None
    candidate: str | None = None
    change: PoolChange | None = None
    groups: tuple[GroupStatus, ...] = ()
    suspended: bool = False


class PoolReconciler:
    """Observe, plan, apply, clean up, one status write.

    Args:
        cluster: where the objects are.
        pools: finds Ray clusters.
        managed: makes those of managed pools.
        record: takes events: object, whether a warning, reason, message.
        defaults: makes pools where there is none.
        release: ends pools whose state lies in a Redis.
        clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        cluster: Cluster,
        pools: PoolDirectory,
        managed: ManagedPools,
        record: Callable[[Manifest, bool, str, str], None],
        *,
        defaults: DefaultPools,
        release: PoolRelease,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._pools = pools
        self._managed = managed
        self._defaults = defaults
        self._release = release
        self._record = record
        self._clock = clock

    def reconcile(self, key: Key) -> Result:
        """See `penstock_operator.runtime.controller.Reconcile`."""
        manifest = self._cluster.get(SERVING_POOL, key)
        if manifest is None:
            return Result(self._defaults.make(key), "deployments name a pool that was deleted")
        if manifest["metadata"].get("deletionTimestamp") is not None:
            with self._telling(manifest):
                return self._release.carry_out(manifest)
        try:
            pool = read(ServingPool, manifest)
        except Invalid as error:
            tell_unreadable(
                self._cluster,
                SERVING_POOL,
                manifest,
                error,
                condition=PoolCondition.READY,
                manager=POOL_MANAGER,
                now=self._clock(),
                record=self._record,
            )
            raise
        if pool.spec.managed is not None:
            with self._telling(manifest):
                self._release.hold(manifest, pool)
                observed = self._managed.observe(pool)
            return self._reconcile_managed(manifest, pool, observed)
        with self._telling(manifest):
            found, result = self._existing(pool)
        self._write(manifest, pool, found)
        return result

    def _existing(self, pool: ServingPool) -> tuple[_Found, Result]:
        """A Ray cluster that someone else runs."""
        writer = self._pools.writer(pool)
        if isinstance(writer, PoolProblem):
            return _Found(false(writer.reason, writer.message)), Result(_PROBLEM_SECONDS, writer.message)
        try:
            seen = self._ask(writer)
        except Unavailable as error:
            return _Found(false(reason_of(error), error.message)), Result(_PROBLEM_SECONDS, error.message)
        return _Found(_answers(seen), seen), Result(_RESYNC_SECONDS, "nodes may have changed; nobody tells")

    def _reconcile_managed(self, manifest: Manifest, pool: ServingPool, observed: PoolObserved | PoolProblem) -> Result:
        """A Ray cluster of our own."""
        if isinstance(observed, PoolProblem):
            self._write(manifest, pool, _Found(false(observed.reason, observed.message)))
            return Result(_PROBLEM_SECONDS, observed.message)
        try:
            wanted = plan(observed, self._clock())
            problem = self._managed.apply(observed, wanted)
        except Invalid as error:
            refused = false(Reason.INVALID_SPEC, error.message)
            self._write(manifest, pool, _Found(refused, progressing=refused))
            raise
        except Unavailable as error:
            self._tell(manifest, pool, error, self._refused(observed, wanted, error))
            raise
        if problem is not None:
            self._write(manifest, pool, _Found(false(problem.reason, problem.message)))
            return Result(_PROBLEM_SECONDS, problem.message)
        serving = _serving(observed, wanted)
        found = self._look(observed, wanted, serving)
        self._write(manifest, pool, found)
        return _again(wanted, found, serving)

    def _look(self, observed: PoolObserved, wanted: PoolPlan, serving: RayClusterView | None) -> _Found:
        """What there is to say of a managed pool, once the plan is applied."""
        pool = observed.pool
        reported = report(observed, serving) if serving is not None else None
        head = reported.head if reported is not None else None
        found = _Found(
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
            return _started(found)
        try:
            seen = self._ask(self._pools.writer_at(pool, serving.name))
        except Unavailable as error:
            reason = reason_of(error) if serving.ever_ready else Reason.STARTING_POOL
            return _started(replace(found, ready=false(reason, error.message)))
        return replace(found, ready=_answers(seen), seen=seen)

    def _ask(self, writer: PoolWriter) -> tuple[str, Sequence[Node]]:
        """Ray's version and nodes; and what belongs to nobody goes. Raises `Unavailable`."""
        seen = writer.client.version(), writer.client.nodes()
        self._drop_orphans(writer)
        return seen

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

    @contextmanager
    def _telling(self, manifest: Manifest) -> Iterator[None]:
        """What the API refuses meanwhile is told; then it goes on to the queue, which tries again."""
        try:
            yield
        except Unavailable as error:
            reason, message = reason_of(error), error.message
            with suppress(Invalid):  # one that is going need not be one that can be read
                pool = read(ServingPool, manifest)
                # Nothing was looked at: neither that it can be used is known, nor that it cannot.
                found = _as_before(pool.status, unknown(reason, message), false(reason, message))
                self._tell(manifest, pool, error, found)
            raise

    def _refused(self, observed: PoolObserved, wanted: PoolPlan, error: Unavailable) -> _Found:
        """What there is to say where the plan could not be applied: what serves goes on, and is told as ever."""
        before, refused = observed.pool.status, false(reason_of(error), error.message)
        serving = _serving(observed, wanted)
        if serving is None:
            return _as_before(before, refused, refused)
        looked = self._look(observed, wanted, serving)
        return replace(looked, progressing=refused, candidate=before.candidate_ray_cluster)

    def _tell(self, manifest: Manifest, pool: ServingPool, error: Unavailable, found: _Found) -> None:
        """Write the status by the way: where that is refused too, the log has what was refused first."""
        if error.reason == Reason.PENDING:
            return  # the lease is lost: who leads now tells
        with suppress(Unavailable):
            self._write(manifest, pool, found)

    def _write(self, manifest: Manifest, pool: ServingPool, found: _Found) -> None:
        before, metadata = pool.status, pool.metadata
        key = Key(metadata.namespace, metadata.name)
        users = deployments_of(key, self._cluster.list(INFERENCE_DEPLOYMENT, key.namespace).items)
        verdicts = {PoolCondition.READY: found.ready, PoolCondition.PROGRESSING: found.progressing}
        generation, now = metadata.generation, self._clock()
        status = ServingPoolStatus(
            observed_generation=generation,
            conditions=tuple(
                condition(kind, verdict, before.conditions, generation, now)
                for kind, verdict in verdicts.items()
                if verdict is not None
            ),
            address=found.address,
            ray_cluster=found.ray_cluster,
            candidate_ray_cluster=found.candidate,
            change=found.change,
            groups=found.groups,
            ray_version=found.seen[0] if found.seen else before.ray_version,
            capacity=_capacity(found, before),
            deployments=len(users),
        )
        if status == before:
            return
        body = {
            "apiVersion": pool.api_version,
            "kind": pool.kind,
            "metadata": {"name": metadata.name, "namespace": metadata.namespace},
            "status": status.model_dump(mode="json", exclude_none=True),
        }
        try:
            self._cluster.apply_status(SERVING_POOL, body, POOL_MANAGER)
        except NotFound:
            return  # deleted meanwhile
        for each, message in merge_alike(transitions(before.conditions, status.conditions)):
            warning = each.status is ConditionStatus.FALSE and facts_of(each.reason).warns
            self._record(manifest, warning, each.reason, message)


def _again(wanted: PoolPlan, found: _Found, serving: RayClusterView | None) -> Result:
    """When to look at a managed pool again."""
    if found.ready.status is ConditionStatus.TRUE and wanted.settled:
        if serving is not None and missing_pods(serving):
            return Result(_WAITING_SECONDS, "workers are starting")
        return Result(_RESYNC_SECONDS, "nodes may have changed; nobody tells")
    if wanted.candidate or wanted.withdraw or wanted.delete or wanted.apply:
        return Result(_MOVING_SECONDS, wanted.progressing.message)
    if wanted.progressing.reason is Reason.PENDING:
        return Result(_TURN_SECONDS, wanted.progressing.message)
    return Result(_RESYNC_SECONDS if found.suspended else _WAITING_SECONDS, found.ready.message)


def _serving(observed: PoolObserved, wanted: PoolPlan) -> RayClusterView | None:
    return next((each for each in observed.clusters if each.name == wanted.serving and not each.deleting), None)


def _as_before(before: ServingPoolStatus, ready: Verdict, progressing: Verdict) -> _Found:
    return _Found(
        ready,
        progressing=progressing,
        address=before.address,
        ray_cluster=before.ray_cluster,
        candidate=before.candidate_ray_cluster,
        change=before.change,
        groups=before.groups,
    )


def capacity(nodes: Sequence[Node]) -> PoolCapacity:
    """What the nodes have in all. Memory is rounded down to whole mebibytes."""
    accelerators: dict[str, float] = {}
    for node in nodes:
        kind = node.labels.get(ACCELERATOR_LABEL)
        if kind is not None:
            # Ray counts GPUs as such, and every other accelerator by its type.
            accelerators[kind] = accelerators.get(kind, 0.0) + (node.total.get("GPU") or node.total.get(kind, 0.0))
    memory = sum(node.total.get("memory", 0.0) for node in nodes)
    return PoolCapacity(
        nodes=len(nodes),
        cpu=f"{sum(node.total.get('CPU', 0.0) for node in nodes):g}",
        memory=readable_bytes(memory // 2**20 * 2**20),
        accelerators={kind: f"{count:g}" for kind, count in sorted(accelerators.items()) if count},
    )


def _capacity(found: _Found, before: ServingPoolStatus) -> PoolCapacity:
    if found.suspended:
        return PoolCapacity()
    return capacity(found.seen[1]) if found.seen else before.capacity


def _answers(seen: tuple[str, Sequence[Node]]) -> Verdict:
    return true(Reason.READY, f"Ray {seen[0]} answers.")


def _started(found: _Found) -> _Found:
    """Where nothing else is under way, the start is."""
    progressing = found.progressing
    if progressing is None or progressing.reason is not Reason.ROLLED_OUT:
        return found
    under_way = found.ready.reason is Reason.STARTING_POOL
    status = ConditionStatus.TRUE if under_way else ConditionStatus.FALSE
    return replace(found, progressing=Verdict(status, found.ready.reason, found.ready.message))
