"""Tests that run at once: each begins beside the others, and fails for itself alone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.at_once import AtOnce

HERE = Path(__file__)


def asked_by(*tests: str) -> pytest.FixtureRequest:
    items = [SimpleNamespace(name=name, path=HERE) for name in tests]
    return cast("pytest.FixtureRequest", SimpleNamespace(path=HERE, session=SimpleNamespace(items=items)))


def test_all_run_at_once_with_what_they_ask_for_and_each_fails_as_itself() -> None:
    at_once, both, ended = AtOnce(), Barrier(2), []

    @at_once
    def test_one(place: str, number: int) -> None:
        both.wait(60)
        assert (place, number) == ("here", 2)

    @at_once
    def test_other() -> None:
        both.wait(60)
        raise AssertionError("the other's")

    def given(stack: ExitStack) -> Mapping[str, Any]:
        stack.callback(lambda: ended.append("one"))
        return {"place": "here", "number": 2, "more": None}

    with at_once.begin(asked_by("test_one", "test_other"), given) as begun:
        test_one(begun)
        with pytest.raises(AssertionError, match="the other's"):
            test_other(begun)
    assert ended == ["one", "one"]


def test_one_that_is_not_selected_does_not_begin() -> None:
    at_once = AtOnce()

    @at_once
    def test_one() -> None:
        pass

    @at_once
    def test_other() -> None:
        raise AssertionError("it began")

    with at_once.begin(asked_by("test_one"), lambda _: {}) as begun:
        test_one(begun)
        assert begun.keys() == {"test_one"}
