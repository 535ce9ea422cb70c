"""The S3 server for the tests here."""

from __future__ import annotations

from tests.stores.plugin import s3, s3_store

__all__ = ["s3", "s3_store"]
