"""Some seconds of `tests.fuzz front` and `tests.fuzz server`, always the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from tests.fuzz import front, server


@pytest.mark.parametrize(
    ("judge", "examples"),
    [(front.conversation, 200), (front.arbitrary_bytes, 200), (server.answering, 60)],
    ids=[
        "each request gets its own answer",
        "anything ends in time",
        "several clients at once are answered or refused",
    ],
)
def test_the_front_gives_each_client_its_own_answers(judge: Callable[[], None], examples: int) -> None:
    settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )(judge)()
