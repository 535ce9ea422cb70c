"""Names of Kubernetes Services, and whether one leads where it says.

A tenant may make a Service of the type ExternalName, which is an alias (CNAME) of any name: of another tenant's Service, or
of something that only Penstock reaches. What follows tenants' addresses therefore holds the name that an answer is of (the
canonical name, getaddrinfo(3)) against the one that was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

_SERVICE: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\.[a-z0-9]([-a-z0-9]*[a-z0-9])?\.svc(\..+)?")


def is_service(host: str) -> bool:
    """Whether a host is named as a Service is: `NAME.NAMESPACE.svc`, with or without the cluster's domain."""
    return _SERVICE.fullmatch(host.rstrip(".").lower()) is not None


def is_alias(host: str, canonical: str, search: Collection[str]) -> bool:
    """Whether a host stands for another name.

    Args:
        host: as it was asked for.
        canonical: whose addresses were found.
        search: domains that the resolver adds to names (`search` in resolv.conf(5)).
    """
    name, found = host.rstrip(".").lower(), canonical.rstrip(".").lower()
    return found not in {name, *(f"{name}.{each.strip('.').lower()}" for each in search)}


def search_domains(lines: Iterable[str]) -> tuple[str, ...]:
    """The domains of a resolv.conf's last `search` line."""
    found: tuple[str, ...] = ()
    for line in lines:
        words = line.split()
        if words[:1] in (["search"], ["domain"]):
            found = tuple(words[1:])
    return found
