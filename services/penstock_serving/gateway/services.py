"""Whether a tenant's Service leads where it says; see `penstock.routing.services`."""

from __future__ import annotations

import asyncio
import socket

from penstock.routing.services import is_alias, is_service
from penstock_runtime.resolver import read_search_domains
from penstock_serving.gateway.lookups import look_up


async def alias_of(host: str) -> str | None:
    """The name that a Service's host is an alias of (ExternalName); None where it is none. Raises OSError: no such name."""
    if not is_service(host):
        return None
    found = await look_up(host, None, flags=socket.AI_CANONNAME)
    canonical = found[0][3] or host
    return canonical if is_alias(host, canonical, await asyncio.to_thread(read_search_domains)) else None
