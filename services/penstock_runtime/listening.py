"""Listening for whoever comes, by IPv4 and by IPv6, as far as this machine has them.

Each family gets a socket of its own. One for both would show IPv4 clients as `::ffff:a.b.c.d`, all in one network of 64 bits, by
which they are counted.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

from penstock.addresses import ANY_IPV4, ANY_IPV6, is_ipv6
from penstock.errors import Invalid

EVERYWHERE: Final = "*"
"""In place of a host: every address of either family."""


def expand_host(host: str, families: Sequence[str] = (ANY_IPV4, ANY_IPV6)) -> tuple[str, ...]:
    """The addresses to listen at: the host itself; of `*`, both families' as far as the kernel has them.

    A kernel without IPv6 (`ipv6.disable=1`) lets nobody bind to it, and a program that tried would not start.

    Raises:
        Invalid: there is neither.
    """
    if host != EVERYWHERE:
        return (host,)
    found = tuple(each for each in families if _can_bind(each))
    if not found:
        raise Invalid("InvalidSettings", "this machine has neither IPv4 nor IPv6: there is nothing to listen at")
    return found


def listen(host: str, port: int, backlog: int = 128) -> socket.socket:
    """A socket that listens at one address, for its own family alone.

    Raises:
        OSError: it cannot be had.
    """
    return socket.create_server((host, port), family=family_of(host), backlog=backlog)


def family_of(host: str) -> socket.AddressFamily:
    """Of an address as it is written."""
    return socket.AF_INET6 if is_ipv6(host) else socket.AF_INET


def _can_bind(host: str) -> bool:
    try:
        with socket.socket(family_of(host), socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
