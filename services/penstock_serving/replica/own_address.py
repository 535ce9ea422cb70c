"""At which of its node's addresses a replica is to be reached."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from penstock.addresses import is_ipv6
from penstock.routing.fleet import endpoints, name_to_resolve
from penstock_runtime.listening import family_of

log = logging.getLogger(__name__)
_ANY_PORT: Final = 9
"""Connecting a socket of UDP sends nothing: it has the kernel choose the address that it would send from."""


def own_address(node: str, gateways: Iterable[str]) -> str:
    """The node's address in the family by which replicas reach the gateways, which is the one that those take it at.

    Pods of a dual-stack cluster have an address of each. Ray prefers IPv4, and a Service the family that the cluster names first.

    Args:
        node: the address that Ray has of this node, which stands where the gateways have its family, or cannot be found.
        gateways: base URLs of gateway agents.
    """
    for url in gateways:
        try:
            host = name_to_resolve(url)
            found = [] if host is None else socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            target = urlsplit(endpoints(url, [str(each[4][0]) for each in found])[0].base_url).hostname or ""
            if is_ipv6(target) is is_ipv6(node) or target == "localhost":
                return node
            with socket.socket(family_of(target), socket.SOCK_DGRAM) as probe:
                probe.connect((target, _ANY_PORT))
                return str(probe.getsockname()[0])
        except OSError as error:
            log.warning("cannot tell by which family %s is reached: %s", url, error)
    return node
