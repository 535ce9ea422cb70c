"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from penstock.errors import Unavailable

LOOPBACK = "127.0.0.1"
_TRIES = 50
_LOWEST, _HIGHEST = 20_000, 32_767
"""Above those that Ray gives its workers, below those that Linux gives to whoever asks for any."""
_KERNELS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """That many different ports, free a moment ago. Whoever binds them must cope with losing the race."""
    candidates = _candidates()
    with ExitStack() as held:
        return [_bound(held, candidates) for _ in range(count)]


def _candidates() -> Iterator[int]:
    """Ports to try: first some that no connection is given by the kernel in the meantime, then any (0), endlessly."""
    try:
        kernels = int(_KERNELS.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):  # no Linux
        kernels = 0
    ports = range(_LOWEST, min(kernels, _HIGHEST + 1))
    yield from random.SystemRandom().sample(ports, min(len(ports), _TRIES))
    while True:
        yield 0


def _bound(held: ExitStack, candidates: Iterator[int]) -> int:
    """A port that is bound until `held` ends."""
    for port in candidates:
        probe = held.enter_context(socket.socket())
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            if port == 0:
                raise
            continue
        return int(probe.getsockname()[1])
    raise AssertionError("candidates never end")


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
