"""How the suite is spread over pytest-xdist's workers, and how programs are built before any test's time limit runs.

Every file is a unit of its own: its module's fixtures are made once, and a worker has at most one Ray and one API server. The
longest units are handed out first. Files that want the same Ray are one unit, since their operators cannot own it at once, and
so are the files that break what all workers share, the last.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

RAY, API_SERVER, LAST = "ray", "apiserver", "last"
_COME_LAST = "tests/e2e/cluster/test_no_request_lost"
"""How the names of files begin whose tests are marked `last`: those of two workers would wait for each other."""
_ON_ONE_RAY = (
    "tests/e2e/test_judged_rollouts.py",
    "tests/e2e/test_kubectl_to_answer.py",
    "tests/integration/test_operator_serving.py",
)
"""Files that want `ray_head`: one starts Ray for all, and the last one's end is its end."""
_ON_ONE_SOURCE = (
    "tests/integration/building/test_built_variants.py",
    "tests/integration/building/test_prepared_sources.py",
)
"""Files that want `small` of their folder: to prepare it takes six seconds of CPU time."""
_FIRST = (RAY, "tests/integration/test_standalone_run.py", "tests/contract/test_serve_rest_contract.py", API_SERVER)
"""What takes longest, the longest first: what starts Ray, files that need an API server."""
_FOLDERS = ("tests/integration/", "tests/stores/", "tests/contract/")
"""Whose files come next: they wait for other programs. Unit tests are what fills the gaps at the end."""


def shared_part(item: pytest.Item) -> str | None:
    """The part of the session that a test shares with others and that is costly to boot, breaks, or is wanted whole, if any."""
    if item.get_closest_marker("last"):
        return LAST
    fixtures = getattr(item, "fixturenames", ())
    if "ray_head" in fixtures:
        return RAY
    return API_SERVER if _wants_api_server(item) else None


def _wants_api_server(item: pytest.Item) -> bool:
    wanted = item.get_closest_marker("apiserver") or "control_plane_binary" in getattr(item, "fixturenames", ())
    return bool(wanted)


def arrange(items: list[pytest.Item]) -> None:
    """Put the longest units first."""
    items.sort(key=lambda item: rank(shared_part(item) or unit_of(item.nodeid)))


def unit_of(test: str) -> str:
    """What a test is handed out with: its file, or all that come last.

    Args:
        test: a test's id.
    """
    file = test.partition("::")[0]
    if file in _ON_ONE_RAY:
        return RAY
    if file in _ON_ONE_SOURCE:
        return file.rpartition("/")[0]
    return LAST if file.startswith(_COME_LAST) else file


def rank(unit: str) -> tuple[int, str]:
    """Where a unit stands in the order in which they are handed out."""
    if unit in _FIRST:
        return _FIRST.index(unit), unit
    if unit == LAST:
        return len(_FIRST) + len(_FOLDERS) + 1, unit
    among = (number for number, folder in enumerate(_FOLDERS, len(_FIRST)) if unit.startswith(folder))
    return next(among, len(_FIRST) + len(_FOLDERS)), unit


def is_last_user(fixture: str, test: pytest.Item, following: pytest.Item | None) -> bool:
    """Whether what a fixture gives to modules in a row can end with a test: the one that follows is another file's without use
    for it."""
    if following is None:
        return True
    return following.path != test.path and fixture not in getattr(following, "fixturenames", ())


def is_last_of_api_server(test: pytest.Item, following: pytest.Item | None) -> bool:
    """The same of an API server, which is asked for by name and by mark."""
    return following is None or (following.path != test.path and not _wants_api_server(following))


class Scheduling(LoadScopeScheduling):
    """Hands out units in the order in which workers collected them."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


class Presence:
    """A worker's word that it has tests to run."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "workers.lock").open("w")
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def wait_for_others(self) -> None:
        """Wait until no other worker has any."""
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def end(self) -> None:
        """Take it back."""
        self._file.close()


def workers(*, cluster: bool) -> int:
    """How many workers `-n auto` starts: more than there are cores, since tests wait for other programs; 4 at most.

    Args:
        cluster: whether the tests are those of a whole cluster, whose nodes compute besides.
    """
    return min(4, (os.cpu_count() or 1) + (1 if cluster else 2))


def reporter(config: pytest.Config) -> Callable[[str], None]:
    """Shows a line of progress at once, in a worker too, whose standard error is the controller's."""
    capture = config.pluginmanager.getplugin("capturemanager")
    terminal = config.pluginmanager.getplugin("terminalreporter")

    def report(line: str) -> None:
        with capture.global_and_fixture_disabled():
            if hasattr(config, "workerinput"):
                os.write(2, f"{line}\n".encode())
            else:
                terminal.ensure_newline()
                terminal.write_line(line)

    return report
