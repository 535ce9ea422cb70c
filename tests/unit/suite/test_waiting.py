"""Waiting in tests: until something is true, and what is said where it never is."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from tests.waiting import eventually


def test_the_first_true_answer_is_given() -> None:
    answers = iter([None, [], [3]])
    assert eventually(lambda: next(answers), pause=0) == [3]


@pytest.mark.parametrize("what", ["three replicas", lambda: "three replicas"], ids=["a text", "a function"])
def test_a_failure_says_what_was_waited_for_and_what_was_seen_last(what: str | Callable[[], str]) -> None:
    with pytest.raises(AssertionError, match=re.escape("not within 0.01 s: three replicas; last seen: []")):
        eventually(list, what, 0.01, pause=0)
