"""What was kept a moment ago, and that the rest is forgotten."""

from __future__ import annotations

from penstock_operator.runtime.copies.cache import Recent


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.forgotten: list[str] = []
        self.recent: Recent[str, str] = Recent(2.0, lambda: self.now, self.forgotten.append)

    def keep(self, key: str, value: str, *, at: float) -> None:
        self.now = at
        self.recent.keep(key, value, at)


def test_a_value_is_kept_for_its_time() -> None:
    clock = Clock()
    clock.keep("a", "x", at=0.0)
    clock.now = 2.0
    assert clock.recent.get("a") == "x"
    clock.now = 2.1
    assert clock.recent.get("a") is None


def test_what_nobody_asks_for_is_forgotten_when_something_else_is_kept() -> None:
    clock = Clock()
    clock.keep("a", "x", at=0.0)
    clock.keep("b", "y", at=1.0)
    clock.keep("c", "z", at=2.5)
    assert clock.forgotten == ["x"]
    assert clock.recent.get("b") == "y"


def test_what_is_kept_again_stays() -> None:
    clock = Clock()
    clock.keep("a", "x", at=0.0)
    clock.keep("b", "y", at=1.0)
    clock.keep("a", "x", at=2.0)
    clock.keep("c", "z", at=3.5)
    assert clock.forgotten == ["y"]


def test_what_another_takes_the_place_of_is_forgotten() -> None:
    clock = Clock()
    clock.keep("a", "x", at=0.0)
    clock.keep("a", "y", at=1.0)
    assert clock.forgotten == ["x"]
    clock.recent.clear()
    assert clock.forgotten == ["x", "y"]


def test_what_is_not_there_is_learned_once() -> None:
    clock, learned = Clock(), iter("abc")
    assert [clock.recent.obtain("x", lambda: next(learned)) for _ in range(2)] == ["a", "a"]
    clock.now = 2.1
    assert clock.recent.obtain("x", lambda: next(learned)) == "b"


def test_what_was_being_learned_when_something_changed_counts_no_more() -> None:
    clock = Clock()

    def learn() -> str:
        clock.recent.outdate("x")
        return "as it was before"

    clock.now = 1.0
    assert clock.recent.obtain("x", learn) == "as it was before"
    assert clock.recent.get("x") is None
    clock.keep("x", "as it is", at=1.5)
    assert clock.recent.get("x") == "as it is"
