"""What `spec.rollout` leaves open."""

from __future__ import annotations

import pytest
from tests.unit.rollout.scenes import spec

from penstock.api.rollout import RolloutAnalysis, RolloutSpec, RolloutType
from penstock.errors import Invalid
from penstock.optimization.measurements import MetricName
from penstock.routing.outcomes import Losses
from penstock_operator.rollout.settings import OF_OPTIMIZED, rollout_settings

AGREE = RolloutAnalysis(output_parity="0.9")
OPEN = [
    ("a model of the user's", RolloutSpec(), False, RolloutType.IMMEDIATE, 0.0, (1, 5, 25, 50)),
    ("a model that an optimization made", RolloutSpec(), True, OF_OPTIMIZED, 0.99, (1, 5, 25, 50)),
    ("a model of the user's, as a canary", spec(), False, RolloutType.CANARY, 0.0, (1, 5, 25, 50)),
    ("a model of the user's, by its answers", spec(type=RolloutType.SHADOW), False, RolloutType.SHADOW, 0.99, (1, 5, 25, 50)),
    ("all at once", spec(type=RolloutType.BLUE_GREEN), False, RolloutType.BLUE_GREEN, 0.0, (100,)),
    ("the agreement is named", spec(analysis=AGREE), True, RolloutType.CANARY, 0.9, (1, 5, 25, 50)),
    ("all is no step", spec(steps=(10, 100)), False, RolloutType.CANARY, 0.0, (10,)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "optimized", "kind", "parity", "steps"), [row[1:] for row in OPEN], ids=[row[0] for row in OPEN]
)
def test_what_is_left_open(
    written: RolloutSpec, kind: RolloutType, parity: float, steps: tuple[int, ...], *, optimized: bool
) -> None:
    found = rollout_settings(written, optimized=optimized)
    assert (found.type, found.analysis.output_parity, found.steps) == (kind, parity, steps)
    assert found.named is (written.type is not None)


LOSSES = [
    ("the profile judges classes", Losses.AUTO, MetricName.ACCURACY, Losses.ARGMAX, True),
    ("it judges directions", Losses.AUTO, MetricName.COSINE, Losses.COSINE, True),
    ("it judges numbers", Losses.AUTO, MetricName.RELATIVE_ERROR, Losses.RELATIVE, True),
    ("it judges an order", Losses.AUTO, MetricName.RANKING, Losses.RANK, True),
    ("it judges by a function of the user's", Losses.AUTO, MetricName.IMPORT_PATH, Losses.AUTO, False),
    ("it names no metric", Losses.AUTO, None, Losses.AUTO, False),
    ("the rollout names a loss of its own", Losses.RANK, MetricName.COSINE, Losses.RANK, False),
]


@pytest.mark.parametrize(
    ("asked", "metric", "loss", "where_it_suits"), [row[1:] for row in LOSSES], ids=[row[0] for row in LOSSES]
)
def test_answers_are_compared_by_what_the_profile_judges(
    asked: Losses, metric: MetricName | None, loss: Losses, *, where_it_suits: bool
) -> None:
    found = rollout_settings(spec(analysis=RolloutAnalysis(loss=asked)), optimized=True, metric=metric)
    assert (found.loss, found.loss_where_it_suits) == (loss, where_it_suits)


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(Invalid, match=r"alpha is \"few\""):
        rollout_settings(spec(analysis=RolloutAnalysis(alpha="few")), optimized=False)
