"""Which programs are built before the tests that start them: what a test's module reaches."""

from __future__ import annotations

import importlib

import pytest
from tests.prebuilt import programs_of, reached


def test_what_a_module_reaches_is_found_over_others() -> None:
    # Imported here: what this module itself reached would be built before its tests.
    found = reached(vars(importlib.import_module("tests.stores.kits")))
    assert {"tests.stores.s3_server", "tests.stores.gcs_server", "tests.stores.registry_server"} <= found
    assert "tests.chart.promeval" not in found


def test_a_test_that_starts_nothing_needs_nothing(request: pytest.FixtureRequest) -> None:
    assert programs_of([request.node]) == []
