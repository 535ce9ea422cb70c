"""Fixtures that many tests share: a real API server, a real Ray and a real trace collector, each once a session."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from tests.cluster.binary import KUBERNETES, BuildFailedError, build
from tests.cluster.controlplane import ControlPlane
from tests.cluster.tools import say
from tests.distribution import Presence, Scheduling, arrange, is_last_of_api_server, is_last_user, reporter, workers
from tests.integration.local_ray import AT_REST, LocalRay, local_ray
from tests.integration.replica_collector import Collector
from tests.prebuilt import programs_of
from tests.sharing import common_folder
from tests.timing import SLOWEST, lines, phases

CRDS = Path(__file__).resolve().parents[1] / "manifests" / "crds"
_RAY = pytest.StashKey[tuple[LocalRay, ExitStack]]()
_API_SERVER = pytest.StashKey[tuple[ControlPlane, ExitStack]]()
_PRESENCE = pytest.StashKey[Presence]()
_FAILED = pytest.StashKey[dict[str, BuildFailedError]]()
"""Programs that could not be built: only the tests that need them fail."""


# A machine that is busy is no fault: Hypothesis fails an example that takes 200 ms, and inputs that are slow to draw. What is drawn
# is the same each time, so that a change is not held up by what another would have met; `--hypothesis-profile=explore` draws anew.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=1000)
settings.register_profile(
    "penstock", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None
)
settings.load_profile("penstock")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """With `-n`, spread tests as `tests.distribution` says."""
    if config.option.numprocesses and config.option.dist == "no":
        config.option.dist = "loadscope"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What `-n auto` means."""
    return workers(cluster=config.option.markexpr == "cluster")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Hand out whole files, and what shares a part of the session, in the order of collection."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Arrange tests for several workers; one process runs them as they are written."""
    if hasattr(config, "workerinput"):
        arrange(items)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Let tests that come last wait for this worker's."""
    if hasattr(session.config, "workerinput"):
        session.config.stash[_PRESENCE] = Presence(common_folder(session.config))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let them wait no longer."""
    if _PRESENCE in session.config.stash:
        session.config.stash[_PRESENCE].end()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Let one that comes last wait for the others before its time limit runs."""
    if hasattr(item.config, "workerinput") and item.get_closest_marker("last"):
        item.config.stash[_PRESENCE].wait_for_others()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:  # noqa: ARG001 -- a hook's name
    """Look for no garbage among modules and tests, neither while there come to be more nor ever after: they stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what tests start before the first of them, whose time limit must not run meanwhile.

    With several workers each comes here before any of them is given a test; one builds, the others wait for it.
    """
    if session.config.option.collectonly:
        return
    report = reporter(session.config)
    for program in programs_of(session.items):
        try:
            build(report, program)
        except BuildFailedError as error:
            report(str(error))
            session.config.stash.setdefault(_FAILED, {})[program.name] = error


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where the time went, above the failures, whose files come last."""
    reports = (report for found in terminalreporter.stats.values() for report in found)
    found = list(phases(reports))
    if len(found) > 3 * SLOWEST:
        terminalreporter.section("time")
        for line in lines(found):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def control_plane_binary(request: pytest.FixtureRequest) -> Path:
    """The built control plane, for tests that boot one of their own."""
    failed = request.config.stash.get(_FAILED, {}).get(KUBERNETES.name)
    if failed is not None:
        raise failed
    return build(say)


@pytest.fixture(scope="module")
def api_server(request: pytest.FixtureRequest, control_plane_binary: Path) -> ControlPlane:
    """A real API server, the same for all modules that need one and follow each other."""
    return _kept(request, _API_SERVER, lambda: ControlPlane(control_plane_binary))


@pytest.fixture(scope="module")
def crds(api_server: ControlPlane) -> ControlPlane:
    """The API server, once it serves Penstock's resources."""
    api_server.serve_once(CRDS)
    return api_server


@pytest.fixture
def namespace(api_server: ControlPlane) -> Iterator[str]:
    """A fresh namespace; deleted afterwards, without waiting."""
    with api_server.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """A real OTLP/HTTP receiver, to which the shared Ray's replicas send their spans."""
    found = Collector()
    yield found
    found.close()


@pytest.fixture(scope="module")
def ray_head(request: pytest.FixtureRequest, collector: Collector) -> LocalRay:
    """A real local Ray with token authentication, the same for all modules that need one and follow each other."""
    environment = {
        **AT_REST,
        "PYTHONPATH": str(CRDS.parents[1]),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    return _kept(request, _RAY, lambda: local_ray(environment=environment, forked=True))


_T = TypeVar("_T")
_Kept = pytest.StashKey[tuple[_T, ExitStack]]


def _kept(request: pytest.FixtureRequest, key: _Kept[_T], make: Callable[[], AbstractContextManager[_T]]) -> _T:
    """What is made once for all modules in a row, until `_end`."""
    stash = request.config.stash
    if key not in stash:
        stack = ExitStack()
        request.config.add_cleanup(stack.close)
        stash[key] = stack.enter_context(make()), stack
    return stash[key][0]


def _end(config: pytest.Config, key: _Kept[Any]) -> None:
    """End it, where there is one."""
    if key in config.stash:
        _, stack = config.stash[key]
        del config.stash[key]
        stack.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """End Ray and the API server with the last module in a row that needs one: idle ones compute all the time."""
    try:
        return (yield)
    finally:
        if is_last_user("ray_head", item, nextitem):
            _end(item.config, _RAY)
        # One process runs files as they are written, where those with an API server do not follow each other.
        if hasattr(item.config, "workerinput") and is_last_of_api_server(item, nextitem):
            _end(item.config, _API_SERVER)
