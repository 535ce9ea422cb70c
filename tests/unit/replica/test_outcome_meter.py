from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from penstock.protocol.refusals import Refusal
from penstock.routing.outcomes import LATENCY_SECONDS, UnrunRequests
from penstock_serving.replica.telemetry.outcomes import OutcomeMeter


@pytest.mark.parametrize(
    ("reason", "counted"),
    [
        pytest.param("", (1, 0, 0, 0), id="an answer"),
        pytest.param(Refusal.ENGINE_FAILED, (0, 1, 0, 0), id="a failure of the model"),
        pytest.param("SomethingElse", (0, 1, 0, 0), id="a defect"),
        pytest.param(Refusal.MODEL_REFUSED, (0, 1, 0, 0), id="one that the model refuses and another might answer"),
        pytest.param(Refusal.NOT_REPRESENTABLE, (0, 1, 0, 0), id="an answer that cannot be written as was asked"),
        pytest.param(Refusal.EXPIRED, (0, 1, 0, 1), id="one that waited for too long, of which its client is told 504"),
        pytest.param(Refusal.BAD_REQUEST, (0, 1, 1, 0), id="one that the signature does not take"),
        pytest.param(Refusal.LENGTH_TOO_LARGE, (0, 0, 0, 0), id="one that no model would have been asked"),
        pytest.param(Refusal.QUEUE_FULL, (0, 0, 0, 0), id="one without room"),
        pytest.param(Refusal.OVERLOADED, (0, 0, 0, 0), id="one without time"),
        pytest.param(Refusal.DRAINING, (0, 0, 0, 0), id="one of a replica that leaves, which is asked of another"),
    ],
)
def test_an_ended_request_counts_as_answered_or_as_failed_or_not_at_all(
    reason: str, counted: tuple[int, int, int, int]
) -> None:
    meter = OutcomeMeter(now=0.0)
    meter.count(reason, 0.003)
    told = meter.tell(1.0, [])
    assert told.unrun is not None
    assert (told.answered, told.failed, told.unrun.unfit, sum(told.unrun.expired.values())) == counted
    assert sum(told.seconds.values()) == told.answered


def test_of_a_deadline_that_was_over_it_is_told_how_long_it_had_waited() -> None:
    meter = OutcomeMeter(now=0.0)
    meter.count(Refusal.EXPIRED, LATENCY_SECONDS[30])
    assert meter.tell(1.0, []).unrun == UnrunRequests(expired={30: 1})


def test_what_another_replica_had_answered_is_no_wrong_input_of_a_client() -> None:
    meter = OutcomeMeter(now=0.0)
    meter.count_shown(Refusal.BAD_REQUEST, 0.001, None, again=False)
    told = meter.tell(1.0, [])
    assert (told.failed, told.unrun, told.shown and told.shown.failed) == (0, UnrunRequests(), 1)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        pytest.param(0.0, 0, id="nothing"),
        pytest.param(LATENCY_SECONDS[7], 7, id="a bound"),
        pytest.param(LATENCY_SECONDS[7] * 1.01, 8, id="just above it"),
        pytest.param(3600.0, len(LATENCY_SECONDS), id="longer than the last bound"),
    ],
)
def test_an_answer_counts_in_the_first_bucket_whose_bound_is_not_below_it(seconds: float, bucket: int) -> None:
    meter = OutcomeMeter(now=0.0)
    meter.count("", seconds)
    meter.count("", seconds)
    assert meter.tell(1.0, []).seconds == {bucket: 2}


@pytest.mark.parametrize(
    ("answers", "in_flight_for", "late"),
    [
        pytest.param([], [5.0, 0.1], 2, id="nothing was ever answered: whatever waits is late"),
        pytest.param([(1, 0.5)], [0.1], 0, id="for no longer than others took"),
        pytest.param([(1, 0.5)], [2.0, 0.1, 0.7], 2, id="for longer than any took"),
        pytest.param([(1, 9.0), (45, 0.5)], [2.0], 1, id="what took as long was long ago"),
        pytest.param([(1, 9.0)], [2.0], 0, id="nothing was answered of late: all that ever was counts"),
    ],
)
def test_who_waits_longer_than_any_that_was_answered_of_late_is_late(
    answers: Sequence[tuple[int, float]], in_flight_for: Sequence[float], late: int
) -> None:
    meter, now = OutcomeMeter(now=0.0), 60
    for second in range(now):
        for _, seconds in (each for each in answers if each[0] == second):
            meter.count("", seconds)
        meter.tick(float(second))
    assert meter.tell(float(now), [now - each for each in in_flight_for]).late == late


def test_age_and_cpu_time_begin_when_the_replica_can_answer() -> None:
    meter = OutcomeMeter(now=0.0)
    sum(range(3_000_000))
    before = meter.tell(100.0, [])
    meter.begin(100.0)
    after = meter.tell(101.0, [])
    assert (before.age_seconds, after.age_seconds) == (100.0, 1.0)
    assert 0 <= after.cpu_seconds < before.cpu_seconds
    assert after.memory_bytes > 1_000_000


def burn_cpu() -> None:
    began = time.process_time()
    while time.process_time() - began < 0.02:
        pass


@pytest.mark.parametrize(
    ("counted", "sampled", "share"),
    [
        pytest.param(0, 0, 1.0, id="nobody's"),
        pytest.param(3, 0, 1.0, id="clients'"),
        pytest.param(1, 3, 0.25, id="clients', a quarter of all"),
        pytest.param(0, 3, 0.0, id="other replicas'"),
    ],
)
def test_what_samples_cost_is_no_cpu_time_of_the_answers_that_are_counted(
    counted: int, sampled: int, share: float
) -> None:
    began = time.process_time()
    meter = OutcomeMeter(now=0.0)
    burn_cpu()
    for _ in range(counted):
        meter.count("", 0.001)
    for _ in range(sampled):
        meter.count_shown("", 0.001, None, again=False)
    told = meter.tell(1.0, []).cpu_seconds
    assert 0.02 * share <= told <= (time.process_time() - began) * share
    assert meter.tell(1.0, []).cpu_seconds >= told
