"""Builds the programs of others before the first test, whose time limit must not run meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chart.promeval import PROMEVAL
from tests.cluster.binary import BuildFailedError, build
from tests.cluster.tools import PROGRAMS
from tests.distribution import reporter

_HERE = Path(__file__).resolve().parent


def pytest_collection_finish(session: pytest.Session) -> None:
    """Helm, the linter, the Collector and Prometheus' parts, where a test of this folder was collected."""
    if session.config.option.collectonly or not any(item.path.is_relative_to(_HERE) for item in session.items):
        return
    report = reporter(session.config)
    for program in (*(PROGRAMS[name] for name in ("helm", "kube-score", "otelcol", "monitors")), PROMEVAL):
        try:
            build(report, program)
        except BuildFailedError as error:
            report(str(error))  # the tests that need it fail with the same words
