"""Builds looks at a rollout for the tables of its state machine."""

from __future__ import annotations

from typing import Any

from penstock.api.rollout import (
    BaselineKind,
    MetricEvidence,
    ProofSource,
    RolloutPhase,
    RolloutSpec,
    RolloutStatus,
    RolloutType,
)
from penstock.api.rollout_commands import parse_command
from penstock.api.verdicts import timestamp
from penstock.routing.outcomes import ReplicaOutcomes, ShadowOutcomes
from penstock_operator.rollout.arms import baseline_of
from penstock_operator.rollout.evidence.findings import AnalysisSettings, EvidenceLook, Findings
from penstock_operator.rollout.machine import Judge
from penstock_operator.rollout.notes import ArmNotes, RolloutNotes, write_notes
from penstock_operator.rollout.settings import rollout_settings
from penstock_operator.rollout.sight import ArmReplica, ArmSight, RolloutSight

NOW = 1_000_000.0
C, S = "v1new", "v1old"
B = baseline_of(S)
CANARY = RolloutSpec(type=RolloutType.CANARY)


def spec(**changes: Any) -> RolloutSpec:
    """What a user writes, in the words of Python."""
    return RolloutSpec(**{"type": RolloutType.CANARY, **changes})


def replica(
    *,
    answered: int = 0,
    failed: int = 0,
    late: int = 0,
    idle: float = 0.0,
    samples: int = 0,
    shown_failed: int = 0,
    shown: str = C,
) -> ArmReplica:
    shadow = ShadowOutcomes(revision=shown, samples=samples, failed=shown_failed) if samples else None
    outcomes = ReplicaOutcomes(age_seconds=100, answered=answered, failed=failed, late=late, shadow=shadow)
    return ArmReplica(outcomes=outcomes, idle_seconds=idle)


def arm(count: int = 1, *, declared: int | None = None, name: str = "r", **changes: Any) -> ArmSight:
    """An application whose replicas are all there."""
    replicas = {f"{name}{place}": replica() for place in range(count)}
    least = count if declared is None else declared
    given = {"declared": least, "running": count, "wanted": max(count, least), "listed": count, "replicas": replicas}
    return ArmSight(**{**given, **changes})


def notes(**changes: Any) -> RolloutNotes:
    """Of a rollout in which clients' requests came."""
    seen = {"candidate": ArmNotes(grown=1000), "stable": ArmNotes(grown=9000), "busy_at": NOW}
    return RolloutNotes(**{**seen, **changes})


def record(phase: RolloutPhase, weight: int = 0, *, seconds: float = 60.0, **changes: Any) -> RolloutStatus:
    """What the status says of a rollout that has been in a phase for a while."""
    given: dict[str, Any] = {
        "type": RolloutType.CANARY,
        "phase": phase,
        "candidate": C,
        "stable": S,
        "weight": weight,
        "step": (1, 5, 25, 50, 100).index(weight) if weight else 0,
        "started_at": timestamp(NOW - 500),
        "phase_at": timestamp(NOW - seconds),
        "deadline": timestamp(NOW + 3000) if phase is not RolloutPhase.STARTING else "",
        "baseline": BaselineKind.YOUNG,
        "notes": write_notes(notes()),
    }
    return RolloutStatus(**{**given, **changes})


def sight(before: RolloutStatus | None, **changes: Any) -> RolloutSight:
    """A look at three arms of one replica each."""
    asked = changes.pop("spec", CANARY)
    told = changes.pop("told", "")
    given: dict[str, Any] = {
        "candidate": C,
        "stable": S,
        "baseline": B,
        "settings": rollout_settings(asked, optimized=changes.pop("optimized", False)),
        "record": before,
        "arms": {C: arm(name="c"), S: arm(name="s"), B: arm(name="b")},
        "low": 1,
        "high": 1,
        "comparable": True,
        "switched": bool(before is not None and before.weight == 100),
        "room_for_baseline": True,
        "command": parse_command(told),
        "now": NOW,
    }
    return RolloutSight(**{**given, **changes})


def judge(
    *,
    harm: str | None = None,
    missing: tuple[str, ...] = (),
    skewed: str | None = None,
    speedup: float | None = None,
    by: ProofSource | None = ProofSource.LIVE,
) -> Judge:
    """Says always the same."""
    metrics = tuple(
        MetricEvidence(name=name, proved=name not in missing, proved_by=None if name in missing else by)
        for name in ("errors", "latency", "parity")
    )

    def say(state: str, look: EvidenceLook, settings: AnalysisSettings) -> Findings:
        del look, settings
        return Findings(state or "1", metrics, harm, skewed, missing, 100, replayed=False, speedup=speedup)

    return say


PROVED = judge()
SHOWN_ONLY = judge(by=ProofSource.SHOWN)
"""All is proved, by what both were shown alone."""
OPEN = judge(missing=("errors", "latency"))
"""Nothing is wrong, and not all is proved."""
UNLIKE = judge(missing=("errors", "parity"))
"""Answers were not proved to agree."""
HARM = judge(harm="failed requests: 5 % with the new revision and 0 % with the present one")
