"""Fixtures of the integration tests: a real Ray, started once for all that need it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.integration.local_ray import LocalRay, local_ray


@pytest.fixture(scope="session")
def ray_head() -> Iterator[LocalRay]:
    """A real local Ray with token authentication."""
    with local_ray() as head:
        yield head
