"""Hosts with a port, of either family."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.addresses import is_ipv6, join_port, split_port
from penstock.errors import Invalid
from penstock.routing.validation import check_address
from penstock_operator.pool.directory import _default_serve
from penstock_operator.pool.writer import _proxy_host
from penstock_serving.gateway.settings import GatewaySettings

IPS = st.ip_addresses().filter(lambda each: not each.is_unspecified)
PORTS = st.integers(1, 65535)


@given(IPS | st.sampled_from(["localhost", "ray-head.vision.svc"]), PORTS)
def test_what_is_joined_is_split(host: IPv4Address | IPv6Address | str, port: int) -> None:
    assert split_port(join_port(str(host), port)) == (str(host), port)


@given(IPS, PORTS)
def test_a_lease_may_name_any_address(host: IPv4Address | IPv6Address, port: int) -> None:
    assert check_address(join_port(str(host), port)) == str(host)


@given(IPS, PORTS)
def test_urls_can_be_made_of_any_address(host: IPv4Address | IPv6Address, port: int) -> None:
    assert _default_serve(f"http://{join_port(str(host), port)}") == f"http://{join_port(str(host), 8000)}"
    assert (
        GatewaySettings(secret="secret", state_dir=Path("state"), host=str(host), port=port).url
        == f"http://{join_port(str(host), port)}"
    )


@pytest.mark.parametrize(
    "address",
    ["", ":", ":80", "host", "host:", "host:0", "host:65536", "host:x", "host:-1", "host:٣", "::1", "::1:80", "[::1]",
     "[::1]80", "[host]:80", "[::1:80", "::1]:80", "[[::1]]:80", "a/b:80", "a b:80", "host:" + "1" * 5000],
)  # fmt: skip
def test_what_is_no_host_with_a_port_is_refused(address: str) -> None:
    with pytest.raises(Invalid, match="must be HOST:PORT"):
        split_port(address)


@given(st.text(max_size=30))
def test_nothing_else_comes_of_a_text(text: str) -> None:
    try:
        host, port = split_port(text)
    except Invalid:
        return
    assert join_port(host, port).partition(":")[0] == text.partition(":")[0]
    assert 0 < port < 65536


@pytest.mark.parametrize(
    ("reached", "own", "listens"),
    [
        pytest.param("127.0.0.1", "10.0.0.1", "127.0.0.1", id="this machine alone"),
        pytest.param("::1", "10.0.0.1", "::1", id="this machine alone, by IPv6"),
        pytest.param("localhost", "fd00::1", "127.0.0.1", id="this machine by name"),
        pytest.param("head.vision.svc", "10.0.0.1", "0.0.0.0", id="a Service of a cluster with IPv4"),
        pytest.param("head.vision.svc", "fd00::1", "::", id="a Service of a cluster with IPv6"),
        pytest.param("fd00::7", "10.0.0.1", "::", id="a machine that is named by its IPv6 address"),
    ],
)
def test_serves_proxy_listens_where_it_is_reached(reached: str, own: str, listens: str) -> None:
    assert _proxy_host(reached, ipv6=is_ipv6(own)) == listens
