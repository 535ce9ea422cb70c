"""What evidence does over many simulated rollouts. Seeds are set, and bounds are such that chance alone all but never breaks them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.benchmarks.rollout_figures import exact_interval
from tests.benchmarks.rollout_traffic import Trial
from tests.benchmarks.rollout_trials import Verdicts, run_trials

from penstock_operator.rollout.evidence.ledger import METRICS, AnalysisSettings

SETTINGS = AnalysisSettings()
COUNT = 200


@pytest.fixture(scope="module")
def alike() -> Verdicts:
    trials = [
        Trial("alike", rate, bursty) for rate in (30.0, 300.0) for bursty in (False, True) for _ in range(COUNT // 4)
    ]
    return run_trials(trials, SETTINGS, blocks=120, seed=1, stop=False)


def test_two_copies_of_a_model_are_told_apart_no_more_often_than_ville_allows(alike: Verdicts) -> None:
    """P(max E >= 20) <= 1/20: at most 10 of 200 are expected, and 36 or more come with a chance below 1e-9."""
    assert (alike.evidence >= math.log(20)).sum() < 36


def test_requests_that_are_shared_as_declared_are_not_called_skewed(alike: Verdicts) -> None:
    assert (alike.skew >= math.log(20)).sum() < 36


def test_a_fixed_sample_test_that_is_looked_at_all_the_time_breaks_its_level(alike: Verdicts) -> None:
    """The negative control: of a test at 0.1 %, 200 rollouts are expected to break it 0.2 times."""
    assert (alike.fixed_sample >= 3.09).sum() >= 10


@pytest.mark.parametrize(
    ("metric", "worse"),
    [
        pytest.param("errors", {"failing": 0.01}, id="fails as much more often as is allowed"),
        pytest.param("latency", {"tail": 0.05 / 0.99}, id="is slow as much more often as is allowed"),
        pytest.param("parity", {"differing": 0.01}, id="differs as much as is allowed"),
    ],
)
def test_what_is_worse_by_the_margin_is_hardly_ever_proved(metric: str, worse: dict[str, float]) -> None:
    trials = [Trial(metric, 100, bursty, **worse) for bursty in (False, True) for _ in range(50)]
    found = run_trials(trials, SETTINGS, blocks=100, seed=2, stop=False)
    proved = (found.proof[:, METRICS.index(metric)] >= math.log(20)).sum()
    # 5 are expected at most; 24 or more come with a chance below 1e-9.
    assert proved < 24


@pytest.mark.parametrize(
    "worse",
    [
        pytest.param({"failing": 0.1}, id="a tenth fails"),
        pytest.param({"narrow": 0.1}, id="its signature does not take a tenth"),
        pytest.param({"expiring": 0.3}, id="three in ten deadlines are over"),
        pytest.param({"expiring": 0.3, "deadline": 0.005}, id="three in ten deadlines are over that no answer keeps"),
        pytest.param({"slower": 2.0}, id="all take twice as long"),
        pytest.param({"tail": 0.3}, id="three in ten take long"),
        pytest.param({"differing": 0.3}, id="three in ten are wrong"),
        pytest.param({"differing": 0.2, "class_share": 0.2}, id="one class in five is wrong"),
        pytest.param({"leak": 0.02}, id="its memory grows by half in 25 s"),
        pytest.param({"leak": 0.01}, id="its memory grows by half in 50 s, after it was proved"),
        pytest.param({"cpu": 4.0}, id="it takes four times the CPU time"),
    ],
)
def test_a_bad_candidate_is_reverted_and_never_promoted(worse: dict[str, float]) -> None:
    found = run_trials([Trial("bad", 300, bursty=False, **worse)] * 20, SETTINGS, blocks=400, seed=3)
    assert not np.isnan(found.reverted_at).any()
    assert np.isnan(found.promoted_at).all()


def test_a_copy_whose_replica_a_neighbour_holds_back_for_a_while_is_not_reverted() -> None:
    """As was seen on a busy machine. Evidence that two seconds of it may multiply by 5 turns back four of ten such, and all at 40 s."""
    held = {"slower": 2.4, "cpu": 2.4, "begins": 8}
    trials = [Trial("held", 0.0, bursty=False, **held, ends=ends) for ends in (18, 28) for _ in range(10)]
    found = run_trials(trials, SETTINGS, blocks=400, seed=5)
    assert np.isnan(found.reverted_at).all()


@pytest.mark.parametrize(
    "theirs",
    [
        pytest.param({"expiring": 0.3, "begins": 80, "ends": 100}, id="a neighbour's: deadlines are over for 40 s"),
        pytest.param({"unfit": 0.05}, id="a client's, all of whose requests go to the candidate"),
    ],
)
def test_what_is_no_model_s_failure_reverts_none(theirs: dict[str, float]) -> None:
    """As replicas of a former release count, it reverts some: the control, of 20 rollouts."""
    trials = [Trial("alike", 100, bursty=False, **theirs, apart=apart) for apart in (1.0, 0.0) for _ in range(20)]
    reverted = ~np.isnan(run_trials(trials, SETTINGS, blocks=130, seed=6).reverted_at)
    assert not reverted[:20].any()
    assert reverted[20:].sum() > 2


def test_a_good_candidate_is_promoted() -> None:
    found = run_trials([Trial("good", 300, bursty=False)] * 20, SETTINGS, blocks=400, seed=4)
    assert (~np.isnan(found.promoted_at)).sum() >= 19


def test_an_interval_is_the_textbooks() -> None:
    assert exact_interval(0, 100) == pytest.approx((0.0, 0.0362), abs=1e-4)
    assert exact_interval(5, 50) == pytest.approx((0.0333, 0.2181), abs=1e-4)
