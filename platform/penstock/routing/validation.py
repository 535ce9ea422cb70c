"""What names and addresses may be that leases and routes bring."""

from __future__ import annotations

import re
from ipaddress import ip_address

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
    host, _, port = address.rpartition(":")
    try:
        ip = ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        ip = None
    bracketed = host.startswith("[")
    if ip is None or ip.is_unspecified or bracketed != (ip.version == 6) or "%" in host or not _is_port(port):  # noqa: PLR2004 -- IPv6
        raise Invalid("InvalidLease", f"address {address!r} must be IP:port, or [IP]:port for IPv6")
    return str(ip)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536  # noqa: PLR2004 -- TCP ports
