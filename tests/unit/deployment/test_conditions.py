from __future__ import annotations

from penstock.api.meta import Condition, ConditionStatus
from penstock.api.verdicts import merge_alike


def condition(kind: str, status: ConditionStatus, message: str) -> Condition:
    return Condition(
        type=kind, status=status, reason="StartingPool", message=message, last_transition_time="2026-01-01T00:00:00Z"
    )


def test_what_conditions_say_alike_is_said_once() -> None:
    pool, serving, other, true = (
        condition("PoolReady", ConditionStatus.FALSE, "Wait."),
        condition("Serving", ConditionStatus.FALSE, "Wait."),
        condition("Progressing", ConditionStatus.FALSE, "Wait longer."),
        condition("Profiled", ConditionStatus.TRUE, "Wait."),
    )
    assert merge_alike([pool, other, serving, true]) == (
        (pool, "PoolReady, Serving: Wait."),
        (other, "Progressing: Wait longer."),
        (true, "Profiled: Wait."),
    )
