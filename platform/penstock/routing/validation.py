"""What names and addresses may be that leases and routes bring."""

from __future__ import annotations

import re
from ipaddress import ip_address

from penstock.addresses import is_ipv6, split_port
from penstock.errors import Invalid

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_RESERVED_NAMESPACE = "v2"


def check_model(namespace: str, model: str) -> None:
    """Refuse names that could not stand in a path.

    Raises:
        Invalid: the namespace or the model is malformed.
    """
    for what, name in (("namespace", namespace), ("model", model)):
        if not _NAME.fullmatch(name):
            raise Invalid("InvalidName", f"{what} {name!r} must be letters, digits, '.', '_' and '-'")
    if namespace == _RESERVED_NAMESPACE:
        raise Invalid("InvalidName", f"namespace {namespace!r} is reserved: it is the protocol's path")


def check_version(version: str) -> None:
    """Refuse a version that could not stand in a path. Raises `Invalid`."""
    if not _NAME.fullmatch(version):
        raise Invalid("InvalidLease", f"version {version!r} must be letters, digits, '.', '_' and '-'")


def check_address(address: str) -> str:
    """The IP address of one with a port.

    A name would have to be resolved, by HAProxy and while all requests wait.

    Raises:
        Invalid: the address is malformed.
    """
    try:
        ip = ip_address(split_port(address)[0])
    except (Invalid, ValueError):
        ip = None
    if ip is None or ip.is_unspecified or (is_ipv6(str(ip)) and "%" in address):
        raise Invalid("InvalidLease", f"address {address!r} must be IP:port, or [IP]:port for IPv6")
    return str(ip)
