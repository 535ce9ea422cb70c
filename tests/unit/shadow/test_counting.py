from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.routing.outcomes import LOSS_EDGES, ShadowOutcomes
from penstock_serving.replica.shadow.comparing import Difference
from penstock_serving.replica.shadow.counting import JudgedSample, ShadowCounts, bucket_of

LOSSES = st.floats(0, 1) | st.sampled_from(sorted(each for each in LOSS_EDGES if each >= 0))


def judged(candidate: float, twin: float = 0.0, **more: bool) -> JudgedSample:
    return JudgedSample(1.0, Difference(candidate, "y", f"lost {candidate}", "1 and 2"), Difference(twin), **more)


@pytest.mark.parametrize(
    ("loss", "edge"),
    [
        (0.0, 0.0),
        (1e-12, 0.001),
        (-1e-12, 0.0),
        (1.0, 1.0),
        (-1.0, -1.0),
        (0.3, 0.3),
        (-0.001, -0.001),
        (0.0011, 0.003),
    ],
)
def test_a_loss_counts_in_the_first_bucket_whose_bound_is_not_below_it(loss: float, edge: float) -> None:
    assert LOSS_EDGES[bucket_of(loss)] == edge


@given(st.lists(st.tuples(LOSSES, LOSSES)))
def test_each_sample_is_in_one_bucket_of_each_kind_and_sums_are_within_the_buckets(
    pairs: list[tuple[float, float]],
) -> None:
    counts = ShadowCounts("c")
    for candidate, twin in pairs:
        counts.count(judged(candidate, twin))
    told = ShadowOutcomes.model_validate_json(counts.outcomes().model_dump_json())
    for buckets in (told.candidate_loss, told.twin_loss, told.excess):
        assert sum(buckets.values()) == told.samples == len(pairs)
    assert told.candidate_loss_sum == pytest.approx(sum(candidate for candidate, _ in pairs))
    assert told.candidate_loss_sum <= sum(LOSS_EDGES[bucket] * n for bucket, n in told.candidate_loss.items()) + 1e-9
    assert len(told.worst) <= 5


def test_what_failed_was_made_replayed_or_dropped_is_told_apart() -> None:
    counts = ShadowCounts("c")
    counts.count(judged(1.0, failed=True))
    counts.count(judged(0.5, made=True))
    counts.count_replayed()
    counts.drop()
    told = counts.outcomes()
    assert (told.revision, told.samples, told.failed, told.replayed, told.dropped) == ("c", 1, 1, 1, 1)
    assert told.made is not None
    assert (told.made.samples, told.made.failed, told.made.candidate_loss_sum) == (1, 0, 0.5)
    assert told.candidate_loss_sum == 1.0


def test_the_five_that_differ_most_beyond_their_twins_are_kept() -> None:
    counts = ShadowCounts("c")
    for candidate, twin in [(0.2, 0.0), (0.9, 0.9), (0.5, 0.1), (0.3, 0.0), (1.0, 0.0), (0.1, 0.0), (0.6, 0.0)]:
        counts.count(judged(candidate, twin))
    assert [each.loss for each in counts.outcomes().worst] == [1.0, 0.6, 0.5, 0.3, 0.2]


@pytest.mark.parametrize(("keep", "told"), [(False, "lost 1.0"), (True, "lost 1.0: 1 and 2")])
def test_numbers_of_answers_are_told_where_that_is_allowed(*, keep: bool, told: str) -> None:
    counts = ShadowCounts("c")
    counts.count(judged(1.0), keep_payloads=keep)
    assert counts.outcomes().worst[0].told == told


def test_what_is_told_is_as_short_as_a_lease_must_be() -> None:
    counts = ShadowCounts("c")
    counts.count(JudgedSample(1.0, Difference(1.0, "y" * 999, "z" * 999), Difference()))
    assert len(counts.outcomes().worst[0].told) == 500
