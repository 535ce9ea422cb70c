"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from penstock.errors import Unavailable

LOOPBACK = "127.0.0.1"
_TRIES = 50


def free_ports(count: int) -> list[int]:
    """That many different ports, free a moment ago. Whoever binds them must cope with losing the race."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def next_free_port(wanted: int) -> int:
    """`wanted` if it is free, or the first free one after it.

    Raises:
        Unavailable: none of the next fifty is free.
    """
    for port in range(wanted, min(wanted + _TRIES, 65536)):
        with socket.socket() as probe:
            # A port in TIME_WAIT from a run that just ended is free for a server.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise Unavailable("NoFreePort", f"no port from {wanted} to {wanted + _TRIES - 1} is free; choose with --port")
