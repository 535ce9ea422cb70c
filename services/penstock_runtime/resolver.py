"""What this machine's resolver is told."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from penstock.routing.services import search_domains

_SETTINGS: Final = Path("/etc/resolv.conf")


def read_search_domains() -> tuple[str, ...]:
    """The domains that it adds to names; none where it has no settings."""
    try:
        return search_domains(_SETTINGS.read_text().splitlines())
    except OSError:
        return ()
