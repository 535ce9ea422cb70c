"""Addresses that a user names."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from penstock.errors import Invalid


def split_url(url: str, wrong: str) -> SplitResult:
    """The parts of an `http:` or `https:` URL.

    Args:
        url: as it was typed.
        wrong: what to say where it is none.

    Raises:
        Invalid: it is none.
    """
    try:
        parts = urlsplit(url)
        well = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError as error:  # brackets that do not close, a port that there cannot be
        raise Invalid("InvalidURL", wrong) from error
    if not well:
        raise Invalid("InvalidURL", wrong)
    return parts
