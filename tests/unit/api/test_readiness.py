from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from penstock.api.conditions import DeploymentCondition as Kind
from penstock.api.conditions import Reason
from penstock.api.readiness import DEPLOYMENT_DEPENDENTS, derive_ready, find_condition, set_condition, timestamp
from penstock.api.v1alpha1 import Condition, ConditionStatus

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def condition(kind: Kind, status: ConditionStatus, reason: Reason, message: str = "", generation: int = 1) -> Condition:
    return Condition(
        type=kind.value,
        status=status,
        reason=reason.value,
        message=message,
        last_transition_time=timestamp(NOW),
        observed_generation=generation,
    )


RESOLVED = condition(Kind.MODEL_RESOLVED, TRUE, Reason.MODEL_LOADED)
POOL = condition(Kind.POOL_READY, TRUE, Reason.POOL_AVAILABLE)
SERVING = condition(Kind.SERVING, TRUE, Reason.REPLICAS_READY, "2 of 2 replicas answer")
NO_POOL = condition(Kind.POOL_READY, FALSE, Reason.POOL_NOT_FOUND, "no pool named gpu")
STARTING = condition(Kind.SERVING, UNKNOWN, Reason.STARTING_REPLICAS, "0 of 1 replicas answer")
LOST = condition(Kind.SERVING, FALSE, Reason.REPLICA_FAILED, "the constructor failed")
PROGRESSING = condition(Kind.PROGRESSING, FALSE, Reason.ROLLED_OUT)


@pytest.mark.parametrize(
    ("conditions", "status", "reason", "message"),
    [
        pytest.param((RESOLVED, POOL, SERVING), TRUE, Reason.READY, "2 of 2 replicas answer", id="all hold"),
        pytest.param((SERVING, POOL, RESOLVED), TRUE, Reason.READY, "2 of 2 replicas answer", id="in any order"),
        pytest.param((), UNKNOWN, Reason.PENDING, "ModelResolved is not known yet", id="nothing is known"),
        pytest.param((RESOLVED, POOL), UNKNOWN, Reason.PENDING, "Serving is not known yet", id="one is not set"),
        pytest.param(
            (RESOLVED, POOL, STARTING), UNKNOWN, Reason.STARTING_REPLICAS, "0 of 1 replicas answer", id="one is unknown"
        ),
        pytest.param(
            (RESOLVED, NO_POOL), FALSE, Reason.POOL_NOT_FOUND, "no pool named gpu", id="a failure beats a gap"
        ),
        pytest.param(
            (LOST, NO_POOL, RESOLVED), FALSE, Reason.POOL_NOT_FOUND, "no pool named gpu", id="the first cause"
        ),
        pytest.param(
            (RESOLVED, POOL, SERVING, PROGRESSING),
            TRUE,
            Reason.READY,
            "2 of 2 replicas answer",
            id="Progressing does not count",
        ),
    ],
)
def test_ready_is_derived_from_the_rest(
    conditions: tuple[Condition, ...], status: ConditionStatus, reason: Reason, message: str
) -> None:
    ready = find_condition(derive_ready(conditions, DEPLOYMENT_DEPENDENTS, generation=1, now=NOW), "Ready")

    assert ready == condition(Kind.READY, status, reason, message)


def test_what_was_said_of_an_older_generation_does_not_make_ready() -> None:
    conditions = derive_ready((RESOLVED, POOL, SERVING), DEPLOYMENT_DEPENDENTS, generation=2, now=NOW)

    ready = find_condition(conditions, Kind.READY)
    assert ready is not None
    assert (ready.status, ready.observed_generation) == (UNKNOWN, 2)


def test_the_transition_time_stays_while_the_status_stays() -> None:
    same = set_condition((POOL,), Kind.POOL_READY, TRUE, Reason.READY, "other words", generation=2, now=LATER)
    changed = set_condition(same, Kind.POOL_READY, FALSE, Reason.POOL_UNREACHABLE, "", generation=2, now=LATER)

    assert [c.last_transition_time for c in (*same, *changed)] == ["2026-03-01T12:00:00Z", "2026-03-01T12:05:00Z"]
    assert (same[0].message, same[0].observed_generation) == ("other words", 2)


def test_setting_the_same_again_changes_nothing() -> None:
    conditions = (RESOLVED, POOL, SERVING)
    once = derive_ready(conditions, DEPLOYMENT_DEPENDENTS, generation=1, now=NOW)

    assert derive_ready(once, DEPLOYMENT_DEPENDENTS, generation=1, now=LATER) == once
    assert set_condition(once, Kind.POOL_READY, TRUE, Reason.POOL_AVAILABLE, "", generation=1, now=LATER) == once


def test_a_condition_keeps_its_place_and_a_new_one_goes_to_the_end() -> None:
    conditions = set_condition(
        (RESOLVED, POOL), Kind.MODEL_RESOLVED, FALSE, Reason.MODEL_NOT_FOUND, "", generation=1, now=NOW
    )
    conditions = set_condition(conditions, Kind.SERVING, TRUE, Reason.REPLICAS_READY, "", generation=1, now=NOW)

    assert [c.type for c in conditions] == ["ModelResolved", "PoolReady", "Serving"]


def test_times_are_written_in_utc_to_the_second() -> None:
    there = datetime(2026, 3, 1, 14, 0, 0, 999, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(there) == "2026-03-01T12:00:00Z"
