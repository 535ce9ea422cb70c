"""What workers share: made once, ended once, and made anew by whoever comes when nobody has it any more."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.sharing import shared


def test_the_first_makes_it_and_the_last_ends_it(tmp_path: Path) -> None:
    done: list[str] = []

    def make() -> str:
        done.append("made")
        return f"thing {len(done)}"

    def share(stack: ExitStack) -> str:
        found: str = stack.enter_context(shared(tmp_path, "thing", make, lambda it: done.append(f"ended {it}")))
        return found

    with ExitStack() as second:
        with ExitStack() as first:
            assert share(first) == share(second) == "thing 1"
        assert done == ["made"]
    assert done == ["made", "ended thing 1"]
    with ExitStack() as third:
        assert share(third) == "thing 3"
    assert done[2:] == ["made", "ended thing 3"]


def test_what_could_not_be_made_is_tried_by_the_next(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), shared(tmp_path, "thing", lambda: 1 / 0, print):
        pass
    with shared(tmp_path, "thing", lambda: 2, lambda _: None) as found:
        assert found == 2
