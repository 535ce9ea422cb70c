"""Programs that tests start, built before the first test: a time limit must not run meanwhile.

What a test needs follows from what it imports, so a test that starts another of these programs has nothing to declare.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import pytest
from tests.chart.promeval import PROMEVAL
from tests.cluster.binary import KUBERNETES, Program
from tests.cluster.tools import PROGRAMS
from tests.stores import gcs_server, registry_server, s3_server

_STARTED_BY = {
    "tests.chart.helm": PROGRAMS["helm"],
    "tests.chart.collector": PROGRAMS["otelcol"],
    "tests.chart.promeval": PROMEVAL,
    "tests.cluster.kwok": PROGRAMS["kwok"],
    "test_chart_linters": PROGRAMS["kube-score"],
    "test_chart_monitors": PROGRAMS["monitors"],
    s3_server.__name__: s3_server.PROGRAM,
    gcs_server.__name__: gcs_server.PROGRAM,
    registry_server.__name__: registry_server.PROGRAM,
}
"""The modules that start a program; a test's own has no package."""


def programs_of(items: Iterable[pytest.Item]) -> list[Program]:
    """What the tests start, each once; Kubernetes, which takes longest, first."""
    items = list(items)
    named = {str(found["__file__"]): found for item in items for found in _namespaces(item)}
    used = {name for found in named.values() for name in reached(found)}
    kubernetes = [KUBERNETES] if any(map(needs_control_plane, items)) else []
    return kubernetes + [program for name, program in _STARTED_BY.items() if name in used]


def needs_control_plane(item: pytest.Item) -> bool:
    """Whether a test starts an API server."""
    return bool(item.get_closest_marker("apiserver") or "control_plane_binary" in getattr(item, "fixturenames", ()))


def _namespaces(item: pytest.Item) -> Iterator[dict[str, Any]]:
    """The modules of a test and of its fixtures."""
    if isinstance(item, pytest.Function):
        yield vars(item.module)
        for defined in item._fixtureinfo.name2fixturedefs.values():
            yield from (each.func.__globals__ for each in defined if hasattr(each.func, "__globals__"))


def reached(namespace: Mapping[str, Any]) -> set[str]:
    """Names of a module and of our modules that it has something of, and so on; but not by way of this one."""
    found: set[str] = set()
    left = [(str(namespace["__name__"]), namespace)]
    while left:
        name, values = left.pop()
        if name in found:
            continue
        found.add(name)
        for value in values.values():
            origin = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(origin, str) and origin.startswith("tests.") and origin in sys.modules and origin != __name__:
                left.append((origin, vars(sys.modules[origin])))
    return found
