"""The cluster that the end-to-end tests run in; `make e2e` says which by PENSTOCK_CLUSTER."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without PENSTOCK_CLUSTER, no test here runs: they take a whole cluster, and root."""
    if "PENSTOCK_CLUSTER" in os.environ:
        return
    here = [item for item in items if item.get_closest_marker("cluster")]
    if here:
        config.hook.pytest_deselected(items=here)
        items[:] = [item for item in items if not item.get_closest_marker("cluster")]
