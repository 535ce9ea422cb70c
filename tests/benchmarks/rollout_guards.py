"""Simulated rollouts under the guards that need no statistics: deaths of replicas, and silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tests.unit.rollout.scenes import NOW, B, C, S, arm, record, sight

from penstock.api.rollout import RolloutPhase
from penstock.routing.outcomes import ReplicaOutcomes
from penstock_operator.rollout import guards
from penstock_operator.rollout.evidence.block import BLOCK_SECONDS
from penstock_operator.rollout.notes import RolloutNotes, take_notes
from penstock_operator.rollout.sight import ArmReplica

SECONDS = 900
_NODES = 4
_NODE_FAILS = 3600.0
"""Mean seconds until a node does, with all replicas that lie on it: far more often than nodes do."""
_REPLICA_DIES = 24 * 3600.0
"""The same of a replica by itself, whose node is well."""
_STARTS = (10.0, 120.0)
"""Seconds that one takes to come, in place of one that died."""
_STEPPING = record(RolloutPhase.STEPPING, 50)
Harm = Callable[[RolloutNotes, Any], str]


@dataclass(slots=True)
class FleetArm:
    """Replicas of a revision, by the second from which each can answer."""

    name: str
    size: int
    chance: np.random.Generator
    dies: float = _REPLICA_DIES
    """Mean seconds after which one does."""
    there: dict[str, tuple[float, int]] = field(default_factory=dict)
    """By id: when it comes, and its node."""
    count: int = 0

    def go_on(self, now: float, failed: set[int], seconds: float) -> None:
        """Some seconds later, in which these nodes failed."""
        dying = self.chance.random(len(self.there)) < seconds / self.dies
        for (name, (came, node)), dies in zip(list(self.there.items()), dying, strict=True):
            if node in failed or (dies and came <= now):
                del self.there[name]
        while len(self.there) < self.size:
            self.count += 1
            comes = now + self.chance.uniform(*_STARTS) if now else 0.0
            self.there[f"{self.name}{self.count}"] = (comes, int(self.chance.integers(_NODES)))

    def listed(self, now: float) -> list[str]:
        """Those that answer."""
        return [name for name, (came, _) in self.there.items() if came <= now]


@dataclass(frozen=True, slots=True)
class GuardTrial:
    """What is guarded."""

    size: int
    """Replicas of the candidate, and of the baseline; the stable revision has eight."""
    dies: float = _REPLICA_DIES
    hangs: float = np.inf
    """Second from which on it answers nothing."""
    rate: float = 50.0
    """Requests a second that the candidate gets."""
    slow: float = 0.001
    """Share of answers, of both, that take up to twenty seconds."""


def run_guards(trial: GuardTrial, harms: Mapping[str, Harm], *, count: int, seed: int) -> dict[str, list[float]]:
    """By guard, when it found harm in those of so many rollouts in which it did."""
    found = [_run_one(trial, harms, np.random.default_rng([seed, each])) for each in range(count)]
    return {name: [each[name] for each in found if name in each] for name in harms}


def _run_one(trial: GuardTrial, harms: Mapping[str, Harm], chance: np.random.Generator) -> dict[str, float]:
    found: dict[str, float] = {}
    arms = {
        C: FleetArm("c", trial.size, chance, trial.dies),
        B: FleetArm("b", trial.size, chance),
        S: FleetArm("s", 8, chance),
    }
    answered, late_until, notes = dict.fromkeys(arms, 0), 0.0, RolloutNotes()
    for now in np.arange(0.0, SECONDS, BLOCK_SECONDS):
        failed = {node for node in range(_NODES) if chance.random() < BLOCK_SECONDS / _NODE_FAILS}
        shown = {}
        for name, fleet in arms.items():
            fleet.go_on(float(now), failed, BLOCK_SECONDS)
            here = fleet.listed(float(now))
            came = int(chance.poisson(trial.rate * BLOCK_SECONDS)) if here else 0
            if name == C:
                if chance.random() < 1 - (1 - trial.slow) ** came:
                    late_until = max(late_until, float(now) + chance.uniform(2, 20))
                if now >= trial.hangs:
                    late_until, came = (np.inf if came or late_until > now else late_until), 0
            answered[name] += came
            told = {
                each: ArmReplica(ReplicaOutcomes(age_seconds=100, answered=answered[name] * (each == here[0]), late=int(name == C and late_until > now)))
                for each in here
            }  # fmt: skip
            shown[name] = arm(fleet.size, replicas=told, listed=len(here))
        looked = sight(_STEPPING, arms=shown, now=NOW + float(now))
        notes = take_notes(notes, looked, 50)
        for name, harm in harms.items():
            if name not in found and harm(notes, looked):
                found[name] = float(now)
    return found


def blame_each_death(notes: RolloutNotes, _: Any) -> str:
    """The control: each death is the candidate's."""
    return "died" * (notes.candidate.deaths > 0)


def have_no_patience(notes: RolloutNotes, looked: Any) -> str:
    """The control: who is on the way to another node has no longer than who is there."""
    stuck = notes.stuck_since is not None and notes.others > notes.others_then
    return "silent" * (stuck and looked.now - (notes.stuck_since or 0) >= guards.STUCK_SECONDS)
