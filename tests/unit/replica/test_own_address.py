"""At which of its node's addresses a replica is to be reached, by real sockets of this machine."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from penstock_serving.replica.own_address import own_address

_HAS_IPV6 = socket.has_ipv6 and Path("/proc/net/if_inet6").exists()
needs_ipv6 = pytest.mark.skipif(not _HAS_IPV6, reason="this machine has no IPv6")


@pytest.mark.parametrize(
    ("node", "gateways", "wanted"),
    [
        pytest.param("10.0.0.7", ["http://127.0.0.1:8081"], "10.0.0.7", id="Ray's, where gateways have its family"),
        pytest.param("10.0.0.7", ["http://[::1]:8081"], "::1", id="that of IPv6, where gateways have it", marks=needs_ipv6),
        pytest.param("fd00::7", ["http://127.0.0.1:8081"], "127.0.0.1", id="that of IPv4, where gateways have it"),
        pytest.param("fd00::7", ["http://[::1]:8081"], "fd00::7", id="Ray's, where all is IPv6"),
        pytest.param("10.0.0.7", [], "10.0.0.7", id="Ray's, without gateways"),
        pytest.param("10.0.0.7", ["http://localhost:8081"], "10.0.0.7", id="Ray's, on one machine"),
        pytest.param(
            "fd00::7", ["http://no-such-gateway.invalid:8081", "http://127.0.0.1:1"], "127.0.0.1",
            id="that of the first gateway which can be found",
        ),
    ],
)  # fmt: skip
def test_a_replica_is_reached_at(node: str, gateways: list[str], wanted: str) -> None:
    assert own_address(node, gateways) == wanted
