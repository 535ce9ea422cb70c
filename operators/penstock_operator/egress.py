"""Where pods may connect to, as peers of NetworkPolicies: never to what hands out a machine's own credentials."""

from __future__ import annotations

import ipaddress
from typing import Final

from penstock.api.meta import Manifest

METADATA_SERVICES: Final = ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32")
"""Blocks in which clouds answer with a machine's credentials: link-local addresses, and AWS's own of IPv6."""


def block(cidr: str) -> Manifest:
    """A block of addresses, without the metadata services that lie in it."""
    network = ipaddress.ip_network(cidr)
    inside = [each for each in METADATA_SERVICES if _lies_within(ipaddress.ip_network(each), network)]
    return {"ipBlock": {"cidr": cidr, "except": inside} if inside else {"cidr": cidr}}


def all_peers() -> list[Manifest]:
    """Every address but theirs, and every pod: to some networks (Cilium) blocks of addresses hold none of the cluster's own."""
    return [block("0.0.0.0/0"), block("::/0"), {"namespaceSelector": {}}]


def credential_services() -> list[Manifest]:
    """Rules that open what gives a pod its own identity with a cloud.

    That is GKE's metadata server (at port 988 without Dataplane V2) and EKS Pod Identity, by IPv4 and IPv6.
    """
    places = (
        ("169.254.169.254/32", 80),
        ("169.254.169.252/32", 988),
        ("169.254.170.23/32", 80),
        ("fd00:ec2::23/128", 80),
    )
    return [
        {"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": port, "protocol": "TCP"}]} for cidr, port in places
    ]


def _lies_within(
    part: ipaddress.IPv4Network | ipaddress.IPv6Network, whole: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    """NetworkPolicy's `except` must be strictly inside of its block."""
    if isinstance(part, ipaddress.IPv4Network) and isinstance(whole, ipaddress.IPv4Network):
        return part != whole and part.subnet_of(whole)
    if isinstance(part, ipaddress.IPv6Network) and isinstance(whole, ipaddress.IPv6Network):
        return part != whole and part.subnet_of(whole)
    return False
