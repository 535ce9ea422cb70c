"""Replicas that count, as gateways would tell them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from penstock.routing.outcomes import (
    LATENCY_SECONDS,
    LOSS_EDGES,
    MadeOutcomes,
    ReplicaOutcomes,
    ShadowOutcomes,
    ShownOutcomes,
)
from penstock_operator.rollout.evidence.looks import EvidenceLook


@dataclass(slots=True)
class CountingReplica:
    """Counts of one replica, cumulative."""

    age: float = 60.0
    failed: int = 0
    seconds: Counter[int] = field(default_factory=Counter)
    cpu: float = 0.0
    memory: float = 1e8
    shown_failed: int = 0
    shown_seconds: Counter[int] = field(default_factory=Counter)

    def outcomes(self, shadow: ShadowOutcomes | None = None) -> ReplicaOutcomes:
        return ReplicaOutcomes(
            age_seconds=self.age,
            answered=sum(self.seconds.values()),
            failed=self.failed,
            seconds=dict(self.seconds),
            cpu_seconds=self.cpu,
            memory_bytes=int(self.memory),
            shown=ShownOutcomes(
                answered=sum(self.shown_seconds.values()),
                failed=self.shown_failed,
                seconds=dict(self.shown_seconds),
                cpu_seconds=0.005 * sum(self.shown_seconds.values()),
            ),
            shadow=shadow,
        )


@dataclass(slots=True)
class ArmWorld:
    """How an arm behaves."""

    failing: float = 0.0
    milliseconds: float = 10.0
    growth: float = 0.0
    """Bytes a second."""
    replica: CountingReplica = field(default_factory=CountingReplica)


@dataclass(slots=True)
class LookedWorld:
    """A candidate and a baseline under one traffic, and what a look at them tells."""

    candidate: ArmWorld = field(default_factory=ArmWorld)
    baseline: ArmWorld = field(default_factory=ArmWorld)
    wrong: float = 0.0
    refused: bool = False
    """Whether those were answered with an error where they were shown."""
    rate: float = 100.0
    """Clients' requests a second. With none, inputs are made."""
    pairs: float = 0.0
    """Requests a second that both are shown."""
    at: float = 1_000_000.0
    share: float = 0.5
    samples: int = 0
    excess: Counter[int] = field(default_factory=Counter)
    chance: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def go_on(self, seconds: float = 2.0) -> EvidenceLook:
        """Some time later."""
        self.at += seconds
        for arm in (self.candidate, self.baseline):
            requests = int(self.chance.poisson(self.rate * seconds / 2))
            failed = int(self.chance.binomial(requests, arm.failing))
            times = arm.milliseconds / 1000 * np.exp(0.3 * self.chance.standard_normal(requests - failed))
            replica = arm.replica
            replica.failed += failed
            replica.seconds.update(bisect_left(LATENCY_SECONDS, each) for each in times.tolist())
            replica.cpu += 0.005 * requests
            replica.memory += arm.growth * seconds
            replica.age += seconds
            self._show(arm, int(self.pairs * seconds))
        shown = int(10 * seconds)
        lost = int(self.chance.binomial(shown, self.wrong))
        self.samples += shown
        self.excess.update({LOSS_EDGES.index(0.0): shown - lost, LOSS_EDGES.index(1.0): lost})
        return self.look()

    def _show(self, arm: ArmWorld, count: int) -> None:
        failed = int(self.chance.binomial(count, arm.failing))
        times = arm.milliseconds / 1000 * np.exp(0.3 * self.chance.standard_normal(count - failed))
        arm.replica.shown_failed += failed
        arm.replica.shown_seconds.update(bisect_left(LATENCY_SECONDS, each) for each in times.tolist())

    def look(self) -> EvidenceLook:
        """As it is now."""
        excess = {bucket: count for bucket, count in self.excess.items() if count}
        lost = float(self.excess[LOSS_EDGES.index(1.0)])
        if self.rate:
            failed = int(lost) if self.refused else 0
            shadow = ShadowOutcomes(
                revision="new", samples=self.samples, excess=excess, candidate_loss_sum=lost, failed=failed
            )
        else:
            made = MadeOutcomes(samples=self.samples, excess=excess, candidate_loss_sum=lost)
            shadow = ShadowOutcomes(revision="new", made=made)
        return EvidenceLook(
            at=self.at,
            candidate={"c": self.candidate.replica.outcomes()},
            baseline={"b": self.baseline.replica.outcomes()},
            shadowing={"s": ReplicaOutcomes(age_seconds=1e4, shadow=shadow)},
            expected_share=self.share,
        )
