"""Ports of this machine for the servers that tests start, so that tests at work beside each other take none twice."""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

_LOWEST, _HIGHEST = 20_000, 32_767
"""Above those that Ray gives its workers (10002 to 19999), below those that Linux gives to whoever asks for any port: a
connection that somebody opens in between cannot take one of these."""
_KERNELS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def share(lowest: int, highest: int, worker: int, workers: int) -> range:
    """The ports that one of several workers may use; no other of them does."""
    size = (highest - lowest + 1) // workers
    return range(lowest + worker * size, lowest + (worker + 1) * size)


def _candidates() -> Iterator[int]:
    """This process's ports, endlessly, from a random one on; 0 where the kernel gives any of them to anybody."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    # A worker that takes a dead one's place has a number of its own.
    ports = share(_LOWEST, _kernels_lowest() - 1, worker % workers, workers)
    if not ports:
        return itertools.repeat(0)
    start = random.SystemRandom().randrange(len(ports))
    return itertools.cycle([*ports[start:], *ports[:start]])


def _kernels_lowest() -> int:
    """The first port that the kernel gives to whoever asks for any, where that is known."""
    found = int(_KERNELS.read_text().split()[0]) if _KERNELS.exists() else _LOWEST
    return min(found, _HIGHEST + 1)


_NEXT = _candidates()


def free_ports(count: int) -> list[int]:
    """Different ports that nobody has on any address, none of which was given before in this process's round."""
    return [_free_port() for _ in range(count)]


def free_port() -> int:
    """One of them."""
    return _free_port()


def _free_port() -> int:
    for port in _NEXT:
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("the ports are endless")
