"""Where a connection stands."""

from __future__ import annotations

from enum import Enum, auto


class ConnectionState(Enum):
    """What a connection reads.

    With each request it goes from `AT_REST` by `HEADER` and `BODY` back to `AT_REST`; with the last one to `LAST` instead. What
    cannot be read on takes it from any of these to `REFUSED`. In `LAST` and `REFUSED`, nothing more is read; `CLOSED` follows all.
    """

    AT_REST = auto()
    """Between requests."""
    HEADER = auto()
    BODY = auto()
    LAST = auto()
    """The connection ends with the answers to the requests that came, the last of which says so."""
    REFUSED = auto()
    """The same with a refusal, after which the client's bytes may still come."""
    CLOSED = auto()


class Flow(Enum):
    """Whether bytes are taken from the client."""

    FREE = auto()
    CROWDED = auto()
    """It has too many requests open."""
    STALLED = auto()
    """It does not take its answers."""
