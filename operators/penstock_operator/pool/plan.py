"""The plan for one managed `ServingPool`: `plan(observed, now)` reads nothing else.

Which RayCluster serves is written on the RayClusters themselves (`TOOK_OVER`), so one write moves the whole pool, and
nothing depends on the pool's status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from penstock.api.conditions import Reason
from penstock.api.meta import ConditionStatus, Manifest
from penstock.api.pool import ManagedRayCluster, PoolChange
from penstock.api.verdicts import Verdict, false, true
from penstock_operator.deployment.application import ServeApplication
from penstock_operator.pool import surge as pool_surge
from penstock_operator.pool.drift import Drift, changed_ray_cluster, describe, may_put_right, with_mark
from penstock_operator.pool.names import APPLIED, ray_cluster
from penstock_operator.pool.observed import PoolObserved, RayClusterView
from penstock_operator.pool.raycluster import build, group_hashes, managed_spec, replacement_hash, replacement_name
from penstock_operator.pool.replacement import answers_too, copy_application, known_applications, leaves_unasked
from penstock_operator.pool.status import hindrance

RETIREMENT_SECONDS: Final = 45.0
"""From the moment that another serves: in this time every deployment has looked at the new one, and routes lead there."""
DEPARTURE_SECONDS: Final = 120.0
"""After retirement, for replicas to answer what came to them. Then the RayCluster goes."""
_NAMED: Final = 3
"""Applications that a message names."""


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What is to be done."""

    apply: tuple[Manifest, ...] = ()
    """RayClusters. Those with a resourceVersion must not have changed since."""
    delete: tuple[str, ...] = ()
    """RayClusters."""
    serving: str | None = None
    """Where deployments are to run."""
    candidate: str | None = None
    """The RayCluster that is to take over, where there is one."""
    mirror: tuple[ServeApplication, ...] | None = None
    """All that the candidate is to run; None: leave what there is."""
    withdraw: tuple[str, ...] = ()
    """RayClusters whose applications are to be taken down."""
    change: PoolChange | None = None
    progressing: Verdict = field(default_factory=lambda: true(Reason.ROLLED_OUT, "Nothing is to be changed."))

    @property
    def settled(self) -> bool:
        """Whether nothing is under way."""
        return not (self.apply or self.delete or self.candidate or self.withdraw) and (
            self.progressing.status is ConditionStatus.TRUE and self.progressing.reason is Reason.ROLLED_OUT
        )


@dataclass(frozen=True, slots=True)
class SortedClusters:
    """A pool's RayClusters, sorted."""

    serving: RayClusterView | None
    candidates: tuple[RayClusterView, ...]
    retired: tuple[RayClusterView, ...]
    leaving: tuple[RayClusterView, ...]
    """Those that are being deleted, and those of a former pool of the same name."""


def sort_clusters(uid: str, clusters: Sequence[RayClusterView]) -> SortedClusters:
    """Which serves, which is to, and which did."""
    own = [each for each in clusters if each.owner == uid and not each.deleting]
    started = sorted((each for each in own if each.took_over is not None), key=_takeover_order)
    return SortedClusters(
        serving=started[-1] if started else None,
        candidates=tuple(each for each in own if each.took_over is None),
        retired=tuple(started[:-1]),
        leaving=tuple(each for each in clusters if each not in own),
    )


def plan(observed: PoolObserved, now: float) -> PoolPlan:
    """What is to be done for one managed pool.

    Raises:
        Invalid: the spec cannot be carried out as it is written.
    """
    standing = sort_clusters(observed.pool.metadata.uid, observed.clusters)
    if observed.pool.spec.suspend:
        return _suspend(observed, standing, now)
    serving = standing.serving
    if serving is None:
        return _start_first(observed, standing, now)
    if _can_become(observed, serving):
        return _change_in_place(observed, standing, serving, now)
    if serving.never_ran:
        # It never served anybody, so there is nothing to keep meanwhile.
        gone = tuple(each.name for each in (serving, *standing.candidates, *standing.retired))
        return PoolPlan(
            delete=gone,
            change=PoolChange.REPLACEMENT,
            progressing=true(Reason.REPLACING, f"RayCluster {serving.name} never ran; another takes its place."),
        )
    return _replace(observed, standing, serving, now)


def _suspend(observed: PoolObserved, standing: SortedClusters, now: float) -> PoolPlan:
    """KubeRay ends all pods of a suspended RayCluster and keeps the rest; of others nothing is worth keeping."""
    serving = standing.serving
    others = tuple(each.name for each in (*standing.candidates, *standing.retired))
    verdict = false(Reason.SUSPENDED, "The pool is suspended: set spec.suspend to false to start it again.")
    if serving is None or not _can_become(observed, serving):
        gone = others if serving is None else (serving.name, *others)
        return PoolPlan(delete=gone, progressing=verdict)
    apply, told = _bring_to_spec(observed, serving, now)
    held = told is not None and told.reason is Reason.CHANGED_BY_ANOTHER
    return PoolPlan(
        apply=apply, delete=others, serving=serving.name, progressing=told if told is not None and held else verdict
    )


def _start_first(observed: PoolObserved, standing: SortedClusters, now: float) -> PoolPlan:
    """No RayCluster serves: the first one, or a candidate whose predecessor someone deleted."""
    pool = observed.pool
    starting = true(Reason.STARTING_POOL, "The Ray cluster is being started.")
    candidate = next((each for each in standing.candidates if _can_become(observed, each)), None)
    if candidate is not None:
        others = tuple(each.name for each in standing.candidates if each is not candidate)
        promoted = _build(observed, candidate, now)
        return PoolPlan(apply=(promoted,), delete=others, serving=candidate.name, progressing=starting)
    if standing.candidates:
        return PoolPlan(delete=tuple(each.name for each in standing.candidates), progressing=starting)
    name = ray_cluster(pool.metadata.name)
    if any(each.name == name for each in standing.leaving):
        waiting = f"RayCluster {name} of before is being deleted; the pool's own follows."
        return PoolPlan(progressing=true(Reason.STARTING_POOL, waiting))
    manifest = build(pool, observed.settings, observed.secret, name, took_over=now)
    return PoolPlan(apply=(manifest,), serving=name, progressing=starting)


def _change_in_place(observed: PoolObserved, standing: SortedClusters, serving: RayClusterView, now: float) -> PoolPlan:
    apply, told = _bring_to_spec(observed, serving, now)
    retiring = _retire(observed, standing, serving, now)
    result = replace(
        retiring,
        apply=apply,
        delete=(*retiring.delete, *(each.name for each in standing.candidates)),
        serving=serving.name,
    )
    if told is not None:
        return replace(result, change=PoolChange.IN_PLACE if apply else result.change, progressing=told)
    if standing.retired:
        return result
    over = _describe_surplus(managed_spec(observed.pool), serving)
    if over is not None:
        return replace(result, change=PoolChange.IN_PLACE, progressing=true(Reason.CHANGING_IN_PLACE, over))
    return result


def _bring_to_spec(
    observed: PoolObserved, serving: RayClusterView, now: float
) -> tuple[tuple[Manifest, ...], Verdict | None]:
    """What to apply of the RayCluster that serves, and what to say of it; nothing where it is as it should be."""
    apply, changed = _changes(observed, serving), _changed_by_others(observed, serving)
    if apply:
        said = f"RayCluster {serving.name} takes the change without a new start."
        return apply, true(Reason.CHANGING_IN_PLACE, said)
    if not changed:
        return (), None
    if may_put_right(serving.annotations, changed, now):
        marked = with_mark(_build(observed, serving, serving.took_over), changed, now)
        said = f"RayCluster {serving.name} was changed by another hand, and is put right: {describe(changed)}."
        return (marked,), true(Reason.CHANGING_IN_PLACE, said)
    said = (
        f"RayCluster {serving.name} is changed back as often as it is put right: {describe(changed)}. Whoever does so "
        f"must let it be; kubectl get raycluster {serving.name} -o yaml --show-managed-fields says who that is. What "
        "the pool says is applied again every ten minutes."
    )
    return (), false(Reason.CHANGED_BY_ANOTHER, said)


def _replace(observed: PoolObserved, standing: SortedClusters, serving: RayClusterView, now: float) -> PoolPlan:
    candidate = next((each for each in standing.candidates if _can_become(observed, each)), None)
    outdated = tuple(each.name for each in standing.candidates if each is not candidate)
    base = PoolPlan(
        # One at a time: what still drains would count for room that is about to come free.
        delete=(*outdated, *(each.name for each in standing.retired)),
        serving=serving.name,
        change=PoolChange.REPLACEMENT,
    )
    if candidate is None:
        return _begin(observed, serving, base, now)
    moving = replace(base, candidate=candidate.name)
    new = observed.applications.get(candidate.name)
    if not candidate.head_ready or new is None:
        said = f"RayCluster {candidate.name} is starting beside {serving.name}, which serves on."
        return _wait_for_candidate(observed, candidate, moving, said, now)
    old = known_applications(observed, serving, now)
    if old is None:
        return _take_over_unasked(observed, serving, candidate, moving, now)
    moving = replace(moving, mirror=tuple(copy_application(each) for each in old if each.config is not None))
    missing = [each for each in old if not answers_too(each, new)]
    if missing:
        names = ", ".join(each.name for each in missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        said = (
            f"{len(old) - len(missing)} of {len(old)} applications run on {candidate.name} too; {serving.name} "
            f"serves on until all do. Missing: {names}."
        )
        return _wait_for_candidate(observed, candidate, moving, said, now)
    said = f"All that {serving.name} runs, runs on {candidate.name} too, which takes over."
    return replace(moving, apply=(_build(observed, candidate, now),), progressing=true(Reason.REPLACING, said))


def _take_over_unasked(
    observed: PoolObserved, serving: RayClusterView, candidate: RayClusterView, moving: PoolPlan, now: float
) -> PoolPlan:
    """What serves does not say what it runs, so nothing is copied or taken down: the candidate keeps what it was given."""
    given = observed.applications.get(candidate.name, ())
    # One with another token never will: nobody has the old one any more.
    if serving.secret == observed.secret and not leaves_unasked(serving, given, now):
        said = f"RayCluster {candidate.name} is ready, but {serving.name} does not say what it runs."
        return _wait_for_candidate(observed, candidate, moving, said, now)
    said = f"{serving.name} cannot be asked what it runs; {candidate.name} takes over."
    return replace(moving, apply=(_build(observed, candidate, now),), progressing=true(Reason.REPLACING, said))


def _wait_for_candidate(
    observed: PoolObserved, candidate: RayClusterView, moving: PoolPlan, said: str, now: float
) -> PoolPlan:
    """The candidate is not there yet; what stops it is told, and one that finds no room is given up."""
    given_up = pool_surge.why_given_up(observed, candidate, now)
    if given_up is not None:
        gone = (*moving.delete, candidate.name)
        return replace(moving, candidate=None, mirror=None, delete=gone, progressing=given_up)
    stopped = hindrance(observed, candidate)
    verdict = true(Reason.REPLACING, said) if stopped is None else false(Reason.REPLACING, f"{said} {stopped}")
    return replace(moving, apply=_changes(observed, candidate), progressing=verdict)


def begins(observed: PoolObserved) -> bool:
    """Whether a replacement is to begin now, for which it counts what other pools do."""
    standing = sort_clusters(observed.pool.metadata.uid, observed.clusters)
    serving = standing.serving
    if serving is None or serving.never_ran or observed.pool.spec.suspend or _can_become(observed, serving):
        return False
    return not any(_can_become(observed, each) for each in standing.candidates)


def _begin(observed: PoolObserved, serving: RayClusterView, base: PoolPlan, now: float) -> PoolPlan:
    """Start the second RayCluster, where there is room for it beside the first, and not too many others start."""
    pool = observed.pool
    counts = pool_surge.present_counts(managed_spec(observed.pool), serving)
    held = pool_surge.why_held(observed, managed_spec(observed.pool), serving, counts, now)
    if held is not None:
        return replace(base, progressing=held)
    name = replacement_name(pool, observed.settings, observed.secret, serving.name)
    if any(each.name == name for each in observed.clusters):
        said = f"RayCluster {name} of before is being deleted; then one of the same name starts."
        return replace(base, progressing=true(Reason.REPLACING, said))
    manifest = build(pool, observed.settings, observed.secret, name, groups=counts)
    said = f"RayCluster {name} starts beside {serving.name}, which serves on."
    return replace(base, apply=(manifest,), candidate=name, progressing=true(Reason.REPLACING, said))


def _retire(observed: PoolObserved, standing: SortedClusters, serving: RayClusterView, now: float) -> PoolPlan:
    """Those that served before: first their routes end, then their replicas, then they."""
    since = now - (serving.took_over or now)
    if not standing.retired:
        return PoolPlan()
    names = tuple(each.name for each in standing.retired)
    said = true(Reason.REPLACING, f"{serving.name} serves; {', '.join(names)} drains.")
    result = PoolPlan(change=PoolChange.REPLACEMENT, progressing=said)
    if since < RETIREMENT_SECONDS:
        return result
    left = {name: observed.applications.get(name) for name in names}
    overdue = since > RETIREMENT_SECONDS + DEPARTURE_SECONDS
    done = tuple(name for name in names if overdue or left[name] == ())
    return replace(result, delete=done, withdraw=tuple(name for name in names if name not in done))


def _changes(observed: PoolObserved, cluster: RayClusterView) -> tuple[Manifest, ...]:
    """The RayCluster as it should be, where that is not what was applied last."""
    manifest = _build(observed, cluster, cluster.took_over)
    same = manifest["metadata"]["annotations"][APPLIED] == cluster.applied
    return () if same else (manifest,)


def _changed_by_others(observed: PoolObserved, cluster: RayClusterView) -> tuple[Drift, ...]:
    """What of a RayCluster is not as it was applied."""
    return changed_ray_cluster(_build(observed, cluster, cluster.took_over)["spec"], cluster.spec)


def _build(observed: PoolObserved, cluster: RayClusterView, took_over: float | None) -> Manifest:
    return build(
        observed.pool,
        observed.settings,
        observed.secret,
        cluster.name,
        groups=cluster.groups,
        took_over=took_over,
        resource_version=cluster.resource_version,
    )


def _can_become(observed: PoolObserved, cluster: RayClusterView) -> bool:
    """Whether the spec can be reached from what this one is without starting it anew."""
    if cluster.kind != _kind(observed):
        return False
    wanted = group_hashes(managed_spec(observed.pool), observed.settings)
    return all(wanted.get(name, count.kind) == count.kind for name, count in cluster.groups.items())


def _kind(observed: PoolObserved) -> str:
    return replacement_hash(managed_spec(observed.pool), observed.settings, observed.secret)


def _describe_surplus(spec: ManagedRayCluster, serving: RayClusterView) -> str | None:
    """Workers that are more than the spec allows: they go once nothing runs on them."""
    most = {each.name: each.max_workers for each in spec.worker_groups}
    over = {name: count.replicas - most.get(name, 0) for name, count in serving.groups.items()}
    surplus = [f"{number} of group {name}" for name, number in over.items() if number > 0]
    return f"Workers above the spec go once nothing runs on them: {', '.join(surplus)}." if surplus else None


def _takeover_order(cluster: RayClusterView) -> tuple[float, str]:
    return cluster.took_over or 0.0, cluster.name
