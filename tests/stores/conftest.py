"""The S3 server for the tests here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
from tests.stores.plugin import s3, s3_store

__all__ = ["s3", "s3_store"]


@pytest.fixture(scope="session", autouse=True)
def _one_description_of_s3() -> Iterator[None]:
    """Let botocore read what AWS has once, not for each client: it takes a fifth of a second of CPU time."""
    import botocore.session  # noqa: PLC0415 -- of whoever runs a test here, not of all that collect them

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.session.create_loader))
        yield
