"""What a rollout can be told, in each phase, and how a command is written and read."""

from __future__ import annotations

import pytest
from tests.telling import assert_tells

from penstock.api.rollout import RolloutPhase, RolloutStatus, RolloutType
from penstock.api.rollout_commands import RolloutCommand, RolloutVerb, parse_command, refusal

PROMOTE, PAUSE, RESUME, ABORT, UNDO, RETRY = RolloutVerb
UNDER_WAY = {PROMOTE, PAUSE, ABORT}


@pytest.mark.parametrize(
    ("phase", "sensible", "told"),
    [
        (RolloutPhase.STARTING, UNDER_WAY, "v2 not taken over"),
        (RolloutPhase.SHADOWING, UNDER_WAY, "v2 not taken over"),
        (RolloutPhase.STEPPING, UNDER_WAY, "v2 not taken over"),
        (RolloutPhase.HELD, UNDER_WAY | {RESUME, UNDO}, "v2 held resume"),
        (RolloutPhase.WATCHING, {PROMOTE, UNDO}, "v2 taken over all requests promote undo"),
        (RolloutPhase.PROMOTED, set(), "v2 for good former gone apply"),
        (RolloutPhase.ROLLED_BACK, {RETRY}, "v2 rolled back retry"),
    ],
)
def test_what_makes_sense_in_a_phase_is_taken_and_the_rest_is_refused_with_what_can_be_done(
    phase: RolloutPhase, sensible: set[RolloutVerb], told: str
) -> None:
    status = RolloutStatus(type=RolloutType.CANARY, phase=phase, candidate="v2", stable="v1")

    refusals = {verb: refusal(verb, status) for verb in RolloutVerb}

    assert {verb for verb, why in refusals.items() if why is None} == sensible
    for why in filter(None, refusals.values()):
        assert_tells(why, told)


@pytest.mark.parametrize("distinction", ["", "again", "20261130T200000Z"])
@pytest.mark.parametrize("verb", RolloutVerb)
def test_a_command_is_read_as_it_is_written(verb: RolloutVerb, distinction: str) -> None:
    command = RolloutCommand(verb, "v1abcdef0123", distinction)
    assert parse_command(str(command)) == command


@pytest.mark.parametrize(
    "text",
    ["", "promote", "promote ", "Promote v1", "undo v1 v2 v3", "restart v1", "v1 promote", f"retry v1 {'a' * 120}"],
)
def test_anything_else_is_no_command(text: str) -> None:
    assert parse_command(text) is None
