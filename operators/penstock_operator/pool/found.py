"""What was found of a pool, as its status, its events, and when to look again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from penstock.api.conditions import PoolCondition, Reason
from penstock.api.meta import ConditionStatus
from penstock.api.pool import GroupStatus, PoolCapacity, PoolChange, ServingPool, ServingPoolStatus
from penstock.api.quantity import readable_bytes
from penstock.api.verdicts import Verdict, condition, false, merge_alike, transitions, true
from penstock.names import ACCELERATOR_LABEL
from penstock_operator.deployment.observed import Node, PoolProblem
from penstock_operator.pool.observed import RayClusterView
from penstock_operator.pool.plan import PoolPlan
from penstock_operator.pool.status import lacks_pods
from penstock_operator.runtime.loop.news import News, news_of
from penstock_operator.runtime.loop.requeue import Requeue

RESYNC_SECONDS: Final = 60.0
PROBLEM_SECONDS: Final = 10.0
_WAITING_SECONDS: Final = 4.0
_MOVING_SECONDS: Final = 2.0
_TURN_SECONDS: Final = 15.0
"""After a release nearly all pools wait for their turn; those whose turn it is must be looked at more often."""
RESYNC: Final = Requeue(RESYNC_SECONDS, "nodes may have changed; nobody tells")


@dataclass(frozen=True, slots=True)
class Found:
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

    @classmethod
    def from_problem(cls, problem: PoolProblem) -> Found:
        """A pool that cannot be used."""
        return cls(false(problem.reason, problem.message))

    @classmethod
    def from_status(cls, before: ServingPoolStatus, ready: Verdict, progressing: Verdict) -> Found:
        """A pool that was not looked at: what was found last, and what kept it from being looked at now."""
        return cls(
            ready,
            progressing=progressing,
            address=before.address,
            ray_cluster=before.ray_cluster,
            candidate=before.candidate_ray_cluster,
            change=before.change,
            groups=before.groups,
        )

    def with_answer(self, version: str, nodes: Sequence[Node]) -> Found:
        """The same, where Ray answers."""
        return replace(self, ready=true(Reason.READY, f"Ray {version} answers."), seen=(version, nodes))

    def with_start(self) -> Found:
        """Where nothing else is under way, the start is."""
        progressing = self.progressing
        if progressing is None or progressing.reason is not Reason.ROLLED_OUT:
            return self
        under_way = self.ready.reason is Reason.STARTING_POOL
        status = ConditionStatus.TRUE if under_way else ConditionStatus.FALSE
        return replace(self, progressing=Verdict(status, self.ready.reason, self.ready.message))


def pool_status(pool: ServingPool, found: Found, users: int, now: float) -> ServingPoolStatus:
    """What is to be written.

    Args:
        pool: as it is.
        found: of it.
        users: deployments that name it.
        now: epoch seconds.
    """
    before, generation = pool.status, pool.metadata.generation
    verdicts = {PoolCondition.READY: found.ready, PoolCondition.PROGRESSING: found.progressing}
    return ServingPoolStatus(
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
        deployments=users,
    )


def next_look(wanted: PoolPlan, found: Found, serving: RayClusterView | None) -> Requeue:
    """When to look at a managed pool again."""
    if found.ready.status is ConditionStatus.TRUE and wanted.settled:
        if serving is not None and lacks_pods(serving):
            return Requeue(_WAITING_SECONDS, "workers are starting")
        return RESYNC
    if wanted.candidate or wanted.withdraw or wanted.delete or wanted.apply:
        return Requeue(_MOVING_SECONDS, wanted.progressing.message)
    if wanted.progressing.reason is Reason.PENDING:
        return Requeue(_TURN_SECONDS, wanted.progressing.message)
    return Requeue(RESYNC_SECONDS if found.suspended else _WAITING_SECONDS, found.ready.message)


def news(before: ServingPoolStatus, after: ServingPoolStatus) -> Iterator[News]:
    """An event for each change of a condition."""
    for each, message in merge_alike(transitions(before.conditions, after.conditions)):
        yield news_of(each, message)


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


def _capacity(found: Found, before: ServingPoolStatus) -> PoolCapacity:
    if found.suspended:
        return PoolCapacity()
    return capacity(found.seen[1]) if found.seen else before.capacity
