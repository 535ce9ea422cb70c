"""From replicas' cumulative counts to what happened since the last look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock.routing.outcomes import Counts, ReplicaOutcomes, ShadowOutcomes
from penstock_operator.rollout.evidence.block import LATENCY_BUCKETS, LOSS_BUCKETS, ArmCounts

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


@dataclass(frozen=True, slots=True)
class SeenShadow:
    """What a replica had shown to others at the last look."""

    revision: str
    samples: int
    replayed: int
    candidate_loss: float
    twin_loss: float
    excess: dict[int, int]


@dataclass(frozen=True, slots=True)
class ShadowDifference:
    """What replicas have shown since."""

    samples: int = 0
    replayed: int = 0
    candidate_loss: float = 0.0
    twin_loss: float = 0.0
    excess: tuple[float, ...] = (0.0,) * LOSS_BUCKETS


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
        )
        for replica in known_first(now, former)
    }


def keep_shadows(now: Mapping[str, ReplicaOutcomes], former: Mapping[str, SeenShadow]) -> dict[str, SeenShadow]:
    """The same of what they have shown."""
    shadows = {replica: told.shadow for replica, told in now.items() if told.shadow is not None}
    return {
        replica: SeenShadow(
            shadows[replica].revision,
            shadows[replica].samples,
            shadows[replica].replayed,
            shadows[replica].candidate_loss_sum,
            shadows[replica].twin_loss_sum,
            dict(shadows[replica].excess),
        )
        for replica in known_first(shadows, former)
    }


def arm_difference(
    now: Mapping[str, ReplicaOutcomes], former: Mapping[str, SeenReplica], warm_up_seconds: float
) -> ArmCounts:
    """Counts since the last look, of replicas that were past warm-up then. One that is new, or began anew, counts from now on."""
    answered = failed = late = cpu = memory = 0.0
    seconds = np.zeros(LATENCY_BUCKETS)
    warm = 0
    for replica, before in former.items():
        told = now.get(replica)
        if told is None or before.age_seconds < warm_up_seconds or _began_anew(told, before):
            continue
        warm += 1
        answered += told.answered - before.answered
        failed += told.failed - before.failed
        late += told.late
        cpu += told.cpu_seconds - before.cpu_seconds
        memory += told.memory_bytes
        for bucket, count in told.seconds.items():
            seconds[min(max(bucket, 0), LATENCY_BUCKETS - 1)] += count - before.seconds.get(bucket, 0)
    one = [np.array([float(value)]) for value in (answered, failed, late, cpu, memory / max(warm, 1), warm)]
    return ArmCounts(one[0], one[1], seconds[None, :], one[2], one[3], one[4], one[5])


def shadow_difference(now: Mapping[str, ReplicaOutcomes], former: Mapping[str, SeenShadow]) -> ShadowDifference:
    """What was shown since the last look, by replicas that show to the same revision as then."""
    excess = np.zeros(LOSS_BUCKETS)
    samples = replayed = 0
    losses = twins = 0.0
    for replica, before in former.items():
        told = now[replica].shadow if replica in now else None
        if told is None or told.revision != before.revision or _shows_anew(told, before):
            continue
        samples += told.samples - before.samples
        replayed += told.replayed - before.replayed
        losses += told.candidate_loss_sum - before.candidate_loss
        twins += told.twin_loss_sum - before.twin_loss
        for bucket, count in told.excess.items():
            excess[min(max(bucket, 0), LOSS_BUCKETS - 1)] += count - before.excess.get(bucket, 0)
    return ShadowDifference(samples, replayed, losses, twins, tuple(excess.tolist()))


def _began_anew(told: ReplicaOutcomes, before: SeenReplica) -> bool:
    return (
        told.answered < before.answered
        or told.failed < before.failed
        or told.cpu_seconds < before.cpu_seconds
        or told.age_seconds < before.age_seconds
        or _fell(told.seconds, before.seconds)
    )


def _shows_anew(told: ShadowOutcomes, before: SeenShadow) -> bool:
    return told.samples < before.samples or told.replayed < before.replayed or _fell(told.excess, before.excess)


def _fell(now: Counts, before: Mapping[int, int]) -> bool:
    return any(now.get(bucket, 0) < count for bucket, count in before.items())
