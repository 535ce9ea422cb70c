"""The list that is PUT to a Ray cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.deployment.world import NEW_MODEL, OLD_MODEL, deployment, serve_app

from penstock.serving.arguments import Owner
from penstock_operator.deployment.observed import ApplicationState, ObservedApplication
from penstock_operator.pool.serve import merge

MINE = serve_app(deployment(NEW_MODEL))
OLDER = serve_app(deployment(OLD_MODEL))
ME = ("vision", "digits")
FOREIGN = ObservedApplication(
    "theirs", ApplicationState.RUNNING, config={"name": "theirs", "import_path": "their.app:app", "args": {"k": 1}}
)
GOING = replace(OLDER, state=ApplicationState.DELETING, config=None, arguments=None)
IMPERATIVE = ObservedApplication("by-serve-run", ApplicationState.RUNNING)


def config(app: ObservedApplication) -> dict[str, Any]:
    assert app.config is not None
    return dict(app.config)


CASES: list[
    tuple[str, list[ObservedApplication], dict[tuple[str, str], tuple[dict[str, Any], ...]], list[str], bool]
] = [
    ("nobody asks for anything: nothing is written", [MINE, FOREIGN], {}, [MINE.name, "theirs"], False),
    ("the same again: nothing is written", [MINE], {ME: (config(MINE),)}, [MINE.name], False),
    ("a new application joins those that are not ours", [FOREIGN], {ME: (config(MINE),)}, [MINE.name, "theirs"], True),
    ("an owner drops one of two", [MINE, OLDER], {ME: (config(MINE),)}, [MINE.name], True),
    ("an owner drops all; those that are not ours stay", [MINE, FOREIGN], {ME: ()}, ["theirs"], True),
    ("another owner's stay", [MINE], {("vision", "other"): ()}, [MINE.name], False),
    ("what is going is not brought back", [MINE, GOING], {ME: (config(MINE),)}, [MINE.name], False),
    ("what was made by serve.run is not in the list", [IMPERATIVE], {ME: (config(MINE),)}, [MINE.name], True),
]


@pytest.mark.parametrize(
    ("deployed", "wanted", "names", "changed"), [row[1:] for row in CASES], ids=[row[0] for row in CASES]
)
def test_merge(
    deployed: list[ObservedApplication],
    wanted: dict[tuple[str, str], tuple[dict[str, Any], ...]],
    names: list[str],
    changed: bool,  # noqa: FBT001  # a column of the table
) -> None:
    aggregate = merge(deployed, wanted)
    assert [each["name"] for each in aggregate.applications] == sorted(names)
    assert aggregate.changed is changed


def test_what_is_not_ours_is_sent_back_as_serve_echoed_it() -> None:
    aggregate = merge([FOREIGN], {ME: (config(MINE),)})
    assert config(FOREIGN) in aggregate.applications


def test_what_belongs_to_nobody_any_more_is_dropped() -> None:
    gone = Owner(namespace="vision", name="digits", uid="0c1e")
    aggregate = merge([MINE, FOREIGN], {}, lambda owner: owner == gone)
    assert [each["name"] for each in aggregate.applications] == ["theirs"]
    assert aggregate.changed


def test_a_name_that_another_has_stays_the_others() -> None:
    theirs = replace(MINE, arguments=None, config={"name": MINE.name, "import_path": "their.app:app"})
    aggregate = merge([theirs], {ME: (config(MINE),)})
    assert aggregate.applications == (config(theirs),)
    assert not aggregate.changed
