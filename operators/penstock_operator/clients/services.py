"""Connections to what tenants name: a Service of theirs is followed to its own address and nowhere else."""

from __future__ import annotations

import httpx

from penstock.routing.services import is_alias, is_service
from penstock_operator.clients.connections import BoundedTransport
from penstock_operator.clients.lookup import Lookup, addresses
from penstock_runtime import resolver


class ServiceTransport(httpx.BaseTransport):
    """Refuses Services that are aliases (ExternalName), and connects to the very address that was looked at.

    Args:
        inner: sends requests; by the host's address in the URL and its name in `Host`.
        lookup: like `socket.getaddrinfo` with AI_CANONNAME, of a host and a port.
        search: the resolver's domains; None: those of this machine.
    """

    def __init__(
        self,
        inner: httpx.BaseTransport | None = None,
        lookup: Lookup | None = None,
        search: tuple[str, ...] | None = None,
    ) -> None:
        self._inner = inner or BoundedTransport()
        self._lookup = lookup or addresses
        self._search = search

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it. Raises `httpx.ConnectError` for an alias, or where there is no such name."""
        host = request.url.host
        if is_service(host):
            address = self._address(host, request.url.port or (443 if request.url.scheme == "https" else 80))
            request.extensions = {**request.extensions, "sni_hostname": host}
            request.url = request.url.copy_with(host=address)  # `Host` was set from the name
        return self._inner.handle_request(request)

    def close(self) -> None:
        """Give connections back."""
        self._inner.close()

    def _address(self, host: str, port: int) -> str:
        try:
            found = self._lookup(host, port)
        except OSError as error:
            raise httpx.ConnectError(f"{host}: {error.strerror or error}") from error
        canonical = found[0][3] or host
        search = resolver.read_search_domains() if self._search is None else self._search
        if is_alias(host, canonical, search):
            raise httpx.ConnectError(
                f"{host} is an alias of {canonical}: name a Service that is not of type ExternalName"
            )
        return str(found[0][4][0])
