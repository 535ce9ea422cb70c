"""What Prometheus gets of rollouts, and how often an end is counted."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import REGISTRY

from penstock.api.rollout import RolloutStatus
from penstock_operator.runtime.rollout_metrics import RolloutMetrics, show_rollout

JUDGED: dict[str, Any] = {
    "type": "Canary", "phase": "Stepping", "candidate": "v2", "stable": "v1", "weight": 25, "startedAt": "2026-11-30T20:00:00Z",
    "harm": "1.5", "harmBound": "3", "proofBound": "1.25",
    "metrics": [{"name": "errors", "harm": "0.6", "proof": "2.5", "proved": True}, {"name": "shares", "harm": "-3"}],
}  # fmt: skip


def rollout(**changes: Any) -> RolloutStatus:
    return RolloutStatus.model_validate(JUDGED | changes)


def gauges(*statuses: RolloutStatus) -> dict[str, dict[tuple[str, ...], float]]:
    """By name, and by labels without the namespace."""
    metrics = RolloutMetrics()
    for number, each in enumerate(statuses):
        metrics.show("vision", f"m{number}", each)
    return {
        family.name: {tuple(sample.labels.values())[1:]: sample.value for sample in family.samples}
        for family in metrics.collect()
    }


def test_a_rollout_is_a_phase_a_share_and_evidence_by_its_bound() -> None:
    assert gauges(rollout()) == {
        "penstock_rollout_phase": {("m0", "Stepping", ""): 1.0},
        "penstock_rollout_weight_ratio": {("m0",): 0.25},
        "penstock_rollout_evidence_ratio": {
            ("m0", "all", "harm"): 0.5,
            ("m0", "errors", "harm"): pytest.approx(0.2),
            ("m0", "shares", "harm"): -1.0,
            ("m0", "errors", "proof"): 2.0,
        },
    }


def test_of_what_is_not_judged_yet_there_is_no_evidence() -> None:
    shown = gauges(
        rollout(phase="Held", reason="RolloutPaused", harmBound="", proofBound=""), rollout(metrics=[], harm="?")
    )
    assert shown["penstock_rollout_phase"] == {("m0", "Held", "RolloutPaused"): 1.0, ("m1", "Stepping", ""): 1.0}
    assert shown["penstock_rollout_evidence_ratio"] == {("m1", "all", "harm"): 0.0}


FAILED = rollout(phase="RolledBack", reason="RolloutFailed", weight=0)
PROMOTED = rollout(phase="Promoted", weight=100)


@pytest.mark.parametrize(
    ("before", "looks", "counted"),
    [
        (None, [rollout(), rollout()], {}),
        (rollout(), [FAILED, FAILED], {"RolloutFailed": 1}),
        (None, [rollout(), PROMOTED, PROMOTED], {"Promoted": 1}),
        (PROMOTED, [PROMOTED], {}),
        (FAILED, [FAILED, rollout(startedAt="2026-11-30T21:00:00Z"), rollout(phase="RolledBack", startedAt="2026-11-30T21:00:00Z")],
         {"RolledBack": 1}),
        (rollout(), [FAILED, None, None], {"RolloutFailed": 1}),
    ],
    ids=[
        "one that goes on", "one that was rolled back", "one that was promoted", "what an operator finds that starts",
        "one that was tried again", "of a deployment that is deleted",
    ],
)  # fmt: skip
def test_an_end_is_counted_once(
    before: RolloutStatus | None,
    looks: list[RolloutStatus | None],
    counted: dict[str, float],
    request: pytest.FixtureRequest,
) -> None:
    name = request.node.callspec.id
    for each in looks:
        show_rollout("vision", name, before, each)
        before = each

    outcomes = ("Promoted", "RolledBack", "RolloutFailed", "RolloutAborted")
    found = {
        outcome: REGISTRY.get_sample_value(
            "penstock_rollouts_ended_total", {"namespace": "vision", "deployment": name, "outcome": outcome}
        )
        for outcome in outcomes
    }
    assert {outcome: value for outcome, value in found.items() if value} == counted
    show_rollout("vision", name, None, None)
