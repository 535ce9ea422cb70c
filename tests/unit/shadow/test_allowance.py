from __future__ import annotations

import pytest

from penstock_serving.replica.shadow.allowance import MOST_SHARE, QUIET_SHARE, ShownAllowance


@pytest.mark.parametrize("run_seconds", [0.001, 0.01, 0.3, 4.0])
@pytest.mark.parametrize(("quiet", "most"), [(False, MOST_SHARE), (True, QUIET_SHARE)])
def test_what_is_shown_gets_a_share_of_the_engines_time_however_much_is_shown(
    run_seconds: float,
    quiet: bool,  # noqa: FBT001 -- a row
    most: float,
) -> None:
    allowance = ShownAllowance(0.0)
    now = used = 0.0
    until = 2000 * run_seconds + 100
    while now < until:
        if allowance.admits(now, quiet=quiet):
            allowance.spend(run_seconds)
            used += run_seconds
        now += run_seconds
    assert used <= most * until + max(2.0, 3 * run_seconds) + run_seconds
    assert used >= 0.9 * most * until


def test_after_a_rest_a_slow_model_answers_some_times_in_a_row_and_no_more() -> None:
    allowance = ShownAllowance(0.0)
    for start in (0.0, 100.0):
        runs = 0
        while allowance.admits(start + 3.0 * runs):
            allowance.spend(3.0)
            runs += 1
        assert 2 <= runs <= 5
