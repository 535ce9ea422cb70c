"""`penstock bench`: arrivals, figures and the search for a rate, decided without a server."""

from __future__ import annotations

import math
import random
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.telling import Telling, assert_tells

from penstock_cli.bench.arrivals import ArrivalProcess, arrival_times
from penstock_cli.bench.figures import Exchange, LoadFigures, peak_in_flight, quantile, quantile_interval, summarize
from penstock_cli.bench.rate_search import LatencyObjective, RateTrial, highest_rate, holds, next_rate
from penstock_cli.bench.results import BenchDocument, render


def test_poisson_gaps_are_exponential_and_the_same_for_the_same_seed() -> None:
    times = arrival_times(ArrivalProcess.POISSON, 1000.0, 50.0, seed=3)
    gaps = np.diff(times)
    assert times == arrival_times(ArrivalProcess.POISSON, 1000.0, 50.0, seed=3)
    assert times != arrival_times(ArrivalProcess.POISSON, 1000.0, 50.0, seed=4)
    assert len(times) == pytest.approx(50_000, rel=0.03)
    # Of an exponential distribution, the deviation is the mean, and 1/e of all gaps exceed it.
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.05)
    assert np.mean(gaps > np.mean(gaps)) == pytest.approx(math.exp(-1), rel=0.05)


def test_equal_gaps_are_equal() -> None:
    assert arrival_times(ArrivalProcess.CONSTANT, 4.0, 1.0, seed=0) == [0.0, 0.25, 0.5, 0.75]


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=300), st.floats(0.01, 1))
def test_a_quantile_is_numpys_of_the_inverted_distribution(values: list[float], share: float) -> None:
    ordered = sorted(values)
    expected = np.quantile(ordered, share, method="inverted_cdf")
    near = {ordered[max(0, math.ceil(share * len(ordered)) - 1 - step)] for step in (0, 1)}
    assert quantile(ordered, share) == expected or expected in near  # numpy rounds share · n its own way


def test_the_interval_of_a_p99_covers_it_in_most_samples_and_one_of_the_median_does_not() -> None:
    source, truth = random.Random(5), -math.log(0.01)
    covered = narrow = 0
    for _ in range(400):
        ordered = sorted(source.expovariate(1.0) for _ in range(2000))
        low, high = quantile_interval(ordered, 0.99)
        covered += low <= truth <= high
        low, high = quantile_interval(ordered, 0.5)
        narrow += low <= truth <= high
    assert covered >= 370
    assert narrow == 0


def test_what_waited_in_the_client_counts_as_latency() -> None:
    # A server that stalls for a second while a request is due every 10 ms: the client sent them late.
    stalled = [Exchange(due=n / 100, sent=1.0, done=1.001, status=200) for n in range(100)]
    figures = summarize(stalled, client_cpu=0.1, elapsed=1.0, rate=100.0)
    assert figures.latency_milliseconds is not None
    assert figures.latency_milliseconds.p50 == pytest.approx(511, abs=12)
    assert figures.late_milliseconds_p99 == pytest.approx(990, abs=12)


def test_failures_are_counted_and_their_latencies_left_out() -> None:
    answers = [Exchange(0.0, 0.0, 0.001, 429), Exchange(0.0, 0.0, 0.002, 0), Exchange(0.0, 0.0, 0.5, 200)]
    figures = summarize(answers, client_cpu=0.0, elapsed=1.0, connections=3)
    assert (figures.failed, figures.statuses, figures.answers_per_second) == (2, {0: 1, 200: 1, 429: 1}, 1.0)
    assert figures.latency_milliseconds is not None
    assert figures.latency_milliseconds.p50 == pytest.approx(500)


def test_nothing_answered_has_no_latencies_and_holds_nothing() -> None:
    silent = summarize([], client_cpu=0.0, elapsed=1.0, rate=5.0)
    refused = summarize([Exchange(0, 0, 0.001, 429)], client_cpu=0.0, elapsed=1.0, rate=5.0)
    assert silent.latency_milliseconds is None
    assert not holds(silent, LatencyObjective(1e9))
    assert not holds(refused, LatencyObjective(1e9))


@pytest.mark.parametrize(
    ("milliseconds", "failed", "objective", "held"),
    [
        pytest.param(10, 0, LatencyObjective(10.0), True, id="at the bound"),
        pytest.param(11, 0, LatencyObjective(10.0), False, id="above it"),
        pytest.param(1, 1, LatencyObjective(10.0), False, id="quick, but one was refused"),
        pytest.param(
            1, 1, LatencyObjective(10.0, most_failed=0.02), True, id="one refused of a hundred, where two may be"
        ),
    ],
)
def test_when_a_load_holds_an_objective(
    milliseconds: float, failed: int, objective: LatencyObjective, *, held: bool
) -> None:
    answers = [Exchange(0.0, 0.0, milliseconds / 1000, 200)] * (100 - failed) + [Exchange(0, 0, 0, 429)] * failed
    assert holds(summarize(answers, client_cpu=0, elapsed=1, rate=100), objective) is held


@given(st.floats(1.5, 1e5), st.floats(1.0, 1e5))
@settings(max_examples=200)
def test_the_search_finds_what_a_steady_server_can_within_the_tolerance(capacity: float, first: float) -> None:
    trials: list[RateTrial] = []
    while (rate := next_rate(trials, first)) is not None:
        trials.append(RateTrial(rate, rate <= capacity))
    found = highest_rate(trials)
    if len(trials) < 16:
        assert found is not None
        assert capacity / 1.05 <= found <= capacity
        assert [trial.rate for trial in trials].count(found) >= 2
    elif found is not None:
        assert found <= capacity


def test_a_rate_that_fails_when_tried_again_is_not_found() -> None:
    trials: list[RateTrial] = []
    lucky = True
    while (rate := next_rate(trials, 100.0)) is not None:
        held = rate <= 50 or (rate <= 100 and lucky)
        lucky = lucky and not (rate <= 100 and len(trials) > 6)
        trials.append(RateTrial(rate, held))
    found = highest_rate(trials)
    assert found is not None
    assert not any(trial.rate <= found and not trial.held for trial in trials)


def test_a_server_that_holds_no_rate_has_none() -> None:
    trials: list[RateTrial] = []
    while (rate := next_rate(trials, 100.0)) is not None:
        trials.append(RateTrial(rate, held=False))
    assert highest_rate(trials) is None
    assert len(trials) <= 16


def test_requests_in_flight_are_counted_at_their_most() -> None:
    assert peak_in_flight([Exchange(0, 0, 2, 200), Exchange(1, 1, 3, 200), Exchange(2.5, 2.5, 4, 200)]) == 2


def _load(rate: float, milliseconds: float, cpu: float = 0.1, behind: float = 0.0) -> LoadFigures:
    answers = [Exchange(0.0, 0.0, milliseconds / 1000, 200)] * 100
    return summarize(answers, client_cpu=cpu, elapsed=1.0, rate=rate, behind=[behind] * 100)


def test_the_page_escapes_what_servers_say_and_draws_each_percentile() -> None:
    document = BenchDocument(
        url="http://h/v2/models/m", when="now", client="here", input="x", loads=(_load(10, 1), _load(20, 9)),
        objective_milliseconds=5.0, found_rate=10.0, failures={500: "<script>alert(1)</script>"},
    )  # fmt: skip
    page = render(document)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<polyline") == 3
    assert "10 requests/s" in page


@pytest.mark.parametrize(("trials", "told"), [(1, "once"), (2, "twice")])
def test_what_was_found_says_how_often_it_held(trials: int, told: str) -> None:
    document = BenchDocument(
        url="u", when="now", client="here", input="x", loads=(_load(10, 1),),
        objective_milliseconds=5.0, found_rate=10.0, found_trials=trials,
    )  # fmt: skip
    assert_tells(document.found, f"10 5 {told}")


def test_one_load_alone_is_no_curve() -> None:
    document = BenchDocument(url="http://h/v2/models/m", when="now", client="here", input="x", loads=(_load(10, 1),))
    assert "<polyline" not in render(document)


@pytest.mark.parametrize(
    ("cpu", "behind", "told"),
    [
        pytest.param(0.95, 0.0, True, id="busy"),
        pytest.param(0.3, 0.0, False, id="not busy"),
        pytest.param(0.3, 0.2, True, id="behind its schedule"),
        pytest.param(0.3, 0.004, False, id="held up as any process is"),
        pytest.param(0.3, 0.05, False, id="behind by a small part of what the server took"),
    ],
)
def test_a_client_that_is_the_limit_itself_says_so(cpu: float, behind: float, *, told: bool) -> None:
    document = BenchDocument(
        url="u", when="now", client="here", input="x", loads=(_load(10, 1000 if behind == 0.05 else 1, cpu, behind),)
    )
    assert any("client" in each for each in document.warnings) is told


def test_a_load_without_an_answer_and_a_run_that_was_interrupted_say_so() -> None:
    silent = summarize([], client_cpu=0.0, elapsed=1.0, connections=5)
    loads = (silent, _load(10, 1))
    document = BenchDocument(url="u", when="now", client="here", input="x", loads=loads, interrupted=True)
    assert "Interrupted" in document.warnings[0]
    assert [Telling("5 connections no answer 1 --seconds")] == list(document.warnings[1:])


def test_a_rate_that_was_tried_again_is_one_point_of_the_line_and_names_of_curves_do_not_meet() -> None:
    loads = tuple(_load(rate, at) for rate, at in ((10, 1), (20, 1), (20, 90), (15, 1), (20, 2)))
    page = render(BenchDocument(url="u", when="now", client="here", input="x", loads=loads))
    lines = [line.split() for line in re.findall(r'<polyline points="([^"]*)"', page)]
    assert [len(line) for line in lines] == [3, 3, 3]
    assert len(re.findall("<circle", page)) == 15
    heights = [float(y) for y in re.findall(r'<text x="[0-9.]+" y="([0-9.]+)" dy="4" class="p', page)]
    assert all(lower - upper >= 12 for lower, upper in pairwise(heights))
