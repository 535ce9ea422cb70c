"""Stores that models are fetched from, each behind the same calls: what is there, and its bytes from an offset on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock_runtime.sources.source import RemoteSource

__all__ = ["open_source"]


def open_source(uri: str, options: Mapping[str, Any] | None = None, version: str | None = None) -> RemoteSource:
    """The source of a URI. Its library is imported here, and no other.

    Args:
        uri: of any scheme but those of this machine's file system.
        options: of fsspec's file system, for `s3://` and `gs://`.
        version: see `penstock_runtime.sources.web.WebSource`.

    Raises:
        Invalid: UnsupportedStorage; the scheme is not known, its library is not installed, or the URI names no model.
    """
    scheme = urlsplit(uri).scheme
    try:
        match scheme:
            case "https" | "http":
                from penstock_runtime.sources.web import WebSource  # noqa: PLC0415 -- see above

                return WebSource(uri, version)
            case "hf":
                from penstock_runtime.sources.hub import HubSource  # noqa: PLC0415 -- see above

                return HubSource(uri)
            case "oci":
                from penstock_runtime.sources.registry import RegistrySource  # noqa: PLC0415 -- see above

                return RegistrySource(uri)
            case _:
                from penstock_runtime.sources.objects import ObjectSource  # noqa: PLC0415 -- see above

                return ObjectSource(uri, options or {})
    except ImportError as error:
        raise Invalid(
            Reason.UNSUPPORTED_STORAGE,
            f"{uri}: the library for {scheme}:// is not installed ({error}): install penstock[stores]",
        ) from error
