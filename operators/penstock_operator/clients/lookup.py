"""Looks names of hosts up within an exchange's seconds."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from penstock_operator.clients.bounds import seconds_left

Lookup = Callable[[str, int], list[Any]]
"""Like `socket.getaddrinfo` of a host and a port. Raises `OSError`."""

LOOKUP_SECONDS: Final = 5.0
"""Where no exchange says how long."""


@dataclass(slots=True)
class _Search:
    """A lookup that runs, or ran."""

    done: threading.Event = field(default_factory=threading.Event)
    found: list[Any] = field(default_factory=list)
    problem: OSError | None = None


_searches: dict[tuple[str, int], _Search] = {}
_searching = threading.Lock()


def addresses(host: str, port: int) -> list[Any]:
    """`socket.getaddrinfo` with the canonical name, within the exchange's seconds.

    The system's resolver has no deadline, so it is asked in a thread of its own, for each host one at a time.
    """
    with _searching:
        search = _searches.get((host, port))
        if search is None:
            search = _searches[host, port] = _Search()
            threading.Thread(target=_look_up, args=(search, host, port), name="lookup", daemon=True).start()
    if not search.done.wait(seconds_left(LOOKUP_SECONDS, TimeoutError)):
        raise TimeoutError(f"{host}: its name could not be looked up in time")
    if search.problem is not None:
        raise search.problem
    return search.found


def _look_up(search: _Search, host: str, port: int) -> None:
    try:
        search.found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    except OSError as error:
        search.problem = error
    except UnicodeError as error:
        search.problem = OSError(f"no name of a host: {error}")
    finally:
        with _searching:
            _searches.pop((host, port), None)
        search.done.set()
