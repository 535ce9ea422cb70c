"""From replicas' cumulative counts to what happened since the last look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from penstock.routing.outcomes import (
    Counts,
    MadeOutcomes,
    ReplicaOutcomes,
    ShadowOutcomes,
    ShownOutcomes,
    UnrunRequests,
)
from penstock_operator.rollout.evidence.arrays import Array
from penstock_operator.rollout.evidence.block import LATENCY_BUCKETS, LOSS_BUCKETS, ArmCounts, SampleCounts

MOST_REPLICAS: Final = 16
"""Of an arm whose counts are kept. Where there are more, those that are known already count, then the first by id."""


@dataclass(frozen=True, slots=True)
class SeenReplica:
    """A replica's counts at the last look."""

    age_seconds: float
    answered: int
    failed: int
    cpu_seconds: float
    seconds: dict[int, int]
    unrun: SeenUnrun | None = None
    """None: it does not tell them apart."""
    shown: SeenReplica | None = None
    """Of what others showed it."""


@dataclass(frozen=True, slots=True)
class SeenUnrun:
    """Of requests that failed, those that no model ran."""

    unfit: int
    expired: dict[int, int]


_NONE_SHOWN: Final = SeenReplica(0.0, 0, 0, 0.0, {})
_NONE_MADE: Final = MadeOutcomes()


@dataclass(frozen=True, slots=True)
class SeenSamples:
    """Of answers that were compared."""

    candidate_loss: float = 0.0
    twin_loss: float = 0.0
    excess: dict[int, int] = field(default_factory=dict)
    failed: int = 0


@dataclass(frozen=True, slots=True)
class SeenShadow:
    """What a replica had shown to others at the last look."""

    revision: str
    sent: SeenSamples
    """Of clients' inputs."""
    made: SeenSamples


@dataclass(frozen=True, slots=True)
class ShadowDifference:
    """What replicas have shown since."""

    sent: SampleCounts
    made: SampleCounts


def known_first(ids: Iterable[str], known: Mapping[str, object]) -> tuple[str, ...]:
    """At most `MOST_REPLICAS` of them."""
    return tuple(sorted(ids, key=lambda each: (each not in known, each))[:MOST_REPLICAS])


def keep_replicas(now: Mapping[str, ReplicaOutcomes], former: Mapping[str, SeenReplica]) -> dict[str, SeenReplica]:
    """What is to be known of them at the next look."""
    return {
        replica: SeenReplica(
            now[replica].age_seconds,
            now[replica].answered,
            now[replica].failed,
            now[replica].cpu_seconds,
            dict(now[replica].seconds),
            _keep_unrun(now[replica].unrun),
            _keep_shown(now[replica].shown),
        )
        for replica in known_first(now, former)
    }


def keep_shadows(now: Mapping[str, ReplicaOutcomes], former: Mapping[str, SeenShadow]) -> dict[str, SeenShadow]:
    """The same of what they have shown."""
    shadows = {replica: told.shadow for replica, told in now.items() if told.shadow is not None}
    return {
        replica: SeenShadow(
            shadows[replica].revision,
            _keep_samples(shadows[replica]),
            _keep_samples(shadows[replica].made or _NONE_MADE),
        )
        for replica in known_first(shadows, former)
    }


def _keep_samples(told: ShadowOutcomes | MadeOutcomes) -> SeenSamples:
    return SeenSamples(told.candidate_loss_sum, told.twin_loss_sum, dict(told.excess), told.failed)


def tells_unrun(now: Mapping[str, ReplicaOutcomes], former: Mapping[str, SeenReplica], warm_up_seconds: float) -> bool:
    """Whether all replicas whose counts are compared tell which of the requests that failed no model ran."""
    return all(
        told.unrun is not None and before.unrun is not None
        for _, told, before in _comparable_replicas(now, former, warm_up_seconds)
    )


def arm_difference(
    now: Mapping[str, ReplicaOutcomes],
    former: Mapping[str, SeenReplica],
    warm_up_seconds: float,
    spared: str = "",
    *,
    apart: bool = True,
) -> ArmCounts:
    """Counts since the last look, of replicas that were past warm-up then. One that is new, or began anew, counts from now on.

    Times and CPU time of the one that is `spared` are left out. Unless they are told `apart`, requests that no model ran failed as others.
    """
    sums = _ArmSums()
    memory = 0.0
    for replica, told, before in _comparable_replicas(now, former, warm_up_seconds):
        sums.add(told, before, timed=replica != spared)
        if apart and told.unrun is not None and before.unrun is not None:
            sums.part(told.unrun, before.unrun, timed=replica != spared)
        memory += told.memory_bytes
    return sums.counts(memory / max(sums.replicas, 1), cpu_answers=sums.timed)


def shown_difference(
    now: Mapping[str, ReplicaOutcomes], former: Mapping[str, SeenReplica], warm_up_seconds: float, spared: str = ""
) -> ArmCounts:
    """The same of what others showed them."""
    sums = _ArmSums()
    for replica, told, before in _comparable_replicas(now, former, warm_up_seconds):
        sums.add(told.shown or ShownOutcomes(), before.shown or _NONE_SHOWN, timed=replica != spared)
    return sums.counts(0.0, cpu_answers=float(sums.seconds.sum()))


def slowest_replica(
    now: Mapping[str, ReplicaOutcomes], former: Mapping[str, SeenReplica], warm_up_seconds: float
) -> str:
    """Of at least two replicas that have answered clients since the last look, the one whose answers took longest; else none.

    By the mean of their times' logarithms, as buckets stand for.
    """
    means = {}
    for replica, told, before in _comparable_replicas(now, former, warm_up_seconds):
        since = {bucket: count - before.seconds.get(bucket, 0) for bucket, count in told.seconds.items()}
        answers = sum(since.values())
        if answers:
            means[replica] = sum(bucket * count for bucket, count in since.items()) / answers
    return max(means, key=lambda each: (means[each], each)) if len(means) > 1 else ""


def _comparable_replicas(
    now: Mapping[str, ReplicaOutcomes], former: Mapping[str, SeenReplica], warm_up_seconds: float
) -> Iterator[tuple[str, ReplicaOutcomes, SeenReplica]]:
    """Replicas that were past warm-up at the last look and did not begin anew since, with what they told now and then."""
    for replica, before in former.items():
        told = now.get(replica)
        if told is not None and before.age_seconds >= warm_up_seconds and not _began_anew(told, before):
            yield replica, told, before


@dataclass(slots=True)
class _ArmSums:
    answered: float = 0.0
    failed: float = 0.0
    late: float = 0.0
    cpu_seconds: float = 0.0
    timed: float = 0.0
    """Requests of those replicas whose times count."""
    replicas: int = 0
    unfit: float = 0.0
    seconds: Array = field(default_factory=lambda: np.zeros(LATENCY_BUCKETS))
    expired: Array = field(default_factory=lambda: np.zeros(LATENCY_BUCKETS))

    def part(self, told: UnrunRequests, before: SeenUnrun, *, timed: bool) -> None:
        """What of a replica's failures no model ran. Where times are left out, so are deadlines that were over."""
        unfit = told.unfit - before.unfit
        self.unfit += unfit
        self.failed -= unfit
        for bucket, count in told.expired.items():
            lapsed = count - before.expired.get(bucket, 0)
            self.failed -= lapsed
            if timed:
                self.expired[min(max(bucket, 0), LATENCY_BUCKETS - 1)] += lapsed

    def add(self, told: ReplicaOutcomes | ShownOutcomes, before: SeenReplica, *, timed: bool) -> None:
        """What a replica counted since."""
        answered, failed = told.answered - before.answered, told.failed - before.failed
        self.replicas += 1
        self.answered += answered
        self.failed += failed
        if not timed:
            return
        self.timed += answered + failed
        self.late += told.late
        self.cpu_seconds += told.cpu_seconds - before.cpu_seconds
        for bucket, count in told.seconds.items():
            self.seconds[min(max(bucket, 0), LATENCY_BUCKETS - 1)] += count - before.seconds.get(bucket, 0)

    def counts(self, memory_bytes: float, cpu_answers: float) -> ArmCounts:
        """As a block has them; `cpu_answers`: that took the CPU time."""
        told = (self.late, self.cpu_seconds, cpu_answers, memory_bytes, self.replicas)
        answered, failed, unfit, *rest = (
            np.array([float(value)]) for value in (self.answered, max(self.failed, 0.0), self.unfit, *told)
        )
        return ArmCounts(answered, failed, unfit, self.seconds[None, :], self.expired[None, :], *rest)


def shadow_difference(now: Mapping[str, ReplicaOutcomes], former: Mapping[str, SeenShadow]) -> ShadowDifference:
    """What was shown since the last look, by replicas that show to the same revision as then."""
    sent, made = _SampleSums(), _SampleSums()
    for replica, before in former.items():
        told = now[replica].shadow if replica in now else None
        if told is None or told.revision != before.revision:
            continue
        told_made = told.made or _NONE_MADE
        if _fell(told.excess, before.sent.excess) or _fell(told_made.excess, before.made.excess):
            continue
        sent.add(told, before.sent)
        made.add(told_made, before.made)
    return ShadowDifference(sent.counts(), made.counts())


@dataclass(slots=True)
class _SampleSums:
    candidate_loss: float = 0.0
    twin_loss: float = 0.0
    failed: float = 0.0
    excess: Array = field(default_factory=lambda: np.zeros(LOSS_BUCKETS))

    def add(self, told: ShadowOutcomes | MadeOutcomes, before: SeenSamples) -> None:
        """What a replica has compared since."""
        self.candidate_loss += told.candidate_loss_sum - before.candidate_loss
        self.twin_loss += told.twin_loss_sum - before.twin_loss
        self.failed += max(told.failed - before.failed, 0)
        for bucket, count in told.excess.items():
            self.excess[min(max(bucket, 0), LOSS_BUCKETS - 1)] += count - before.excess.get(bucket, 0)

    def counts(self) -> SampleCounts:
        """As a block has them."""
        sums = (np.array([each]) for each in (self.candidate_loss, self.twin_loss, self.failed))
        return SampleCounts(self.excess[None, :], *sums)


def _keep_unrun(unrun: UnrunRequests | None) -> SeenUnrun | None:
    return None if unrun is None else SeenUnrun(unrun.unfit, dict(unrun.expired))


def _keep_shown(shown: ShownOutcomes | None) -> SeenReplica | None:
    if shown is None:
        return None
    return SeenReplica(0.0, shown.answered, shown.failed, shown.cpu_seconds, dict(shown.seconds))


def _began_anew(told: ReplicaOutcomes, before: SeenReplica) -> bool:
    if _counts_fell(told, before) or told.age_seconds < before.age_seconds:
        return True
    unrun, former = told.unrun, before.unrun
    if unrun and former and (unrun.unfit < former.unfit or _fell(unrun.expired, former.expired)):
        return True
    return before.shown is not None and _counts_fell(told.shown or ShownOutcomes(), before.shown)


def _counts_fell(told: ReplicaOutcomes | ShownOutcomes, before: SeenReplica) -> bool:
    return (
        told.answered < before.answered
        or told.failed < before.failed
        or told.cpu_seconds < before.cpu_seconds
        or _fell(told.seconds, before.seconds)
    )


def _fell(now: Counts, before: Mapping[int, int]) -> bool:
    return any(now.get(bucket, 0) < count for bucket, count in before.items())
