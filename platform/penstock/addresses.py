"""Hosts with a port: `10.0.0.1:80`, `[fd00::1]:80`, `name:80`. An IPv6 address beside a port stands in brackets (RFC 3986, 3.2.2)."""

from __future__ import annotations

from penstock.errors import Invalid

ANY_IPV4 = "0.0.0.0"  # noqa: S104 -- what listens there is asked for it
ANY_IPV6 = "::"


def is_ipv6(host: str) -> bool:
    """Whether a host is written as an IPv6 address, without brackets: no name and no IPv4 address has a colon."""
    return ":" in host


def join_port(host: str, port: int) -> str:
    """A host without brackets and its port, as one text."""
    return f"[{host}]:{port}" if is_ipv6(host) else f"{host}:{port}"


def split_port(address: str) -> tuple[str, int]:
    """The host, without brackets, and the port.

    Raises:
        Invalid: it is no host with a port, or an IPv6 address without brackets, of which nobody knows where it ends.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    plain = host[1:-1] if bracketed else host
    # Seven digits are no port either, and hundreds of them no number that Python would read.
    number = int(port[:6]) if port.isascii() and port.isdigit() else 0
    if not colon or not plain or is_ipv6(plain) is not bracketed or set("[]/ ") & set(plain) or not 0 < number < 65536:  # noqa: PLR2004 -- TCP ports
        raise Invalid("InvalidAddress", f"address {address!r} must be HOST:PORT, or [IP]:PORT for IPv6")
    return plain, number


def any_address(*, ipv6: bool) -> str:
    """Where to listen for a whole family."""
    return ANY_IPV6 if ipv6 else ANY_IPV4
