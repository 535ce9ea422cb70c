"""The gateway agents' control API, as the operator uses it."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import httpx
from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Unavailable
from penstock.models import Frozen
from penstock.routing.fleet import FEATURES, FEATURES_HEADER, Endpoint, GatewayState
from penstock.routing.identities import GATEWAY_NAME
from penstock.routing.keys import KeyChange, KeyDigests
from penstock.routing.leases import (
    ASK_JOINING,
    ASYNCHRONOUS,
    PREFER,
    Completion,
    Route,
    RouteList,
    RouteSet,
    RouteStatus,
)
from penstock_operator.clients.bounds import Bounds
from penstock_operator.clients.connections import BoundedTransport
from penstock_operator.clients.exchange import BoundedClient, WholeAnswer

M = TypeVar("M", bound=Frozen)

_BOUNDS: Final = Bounds(seconds=10.0, most_bytes=256 * 1024 * 1024, connect_seconds=1.0)
"""A gateway is the platform's own; its routes may be many."""
_TOLD_AT_ONCE_BYTES: Final = 256 * 1024


class AnotherSecret(Unavailable):
    """A gateway answers and does not know the operator's token: one of both runs by a secret that was changed."""


class GatewayClient:
    """One gateway's agent. Safe for several threads.

    Args:
        endpoint: where it is, and by which name it is asked for.
        token: the admin token.
        transport: for tests that answer in-process.
        former: the admin token that a gateway of a former release takes; empty: there is none.
        trust: where it has a certificate of the platform's own; None: of https, another's that the system trusts.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        token: str,
        transport: httpx.BaseTransport | None = None,
        former: str = "",
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self.address = endpoint.base_url
        self._server_name = endpoint.server_name if trust is None else GATEWAY_NAME
        if trust is not None:
            transport = BoundedTransport(trust=trust)
        self._former = {"authorization": f"Bearer {former}"} if former else None
        headers = {"authorization": f"Bearer {token}", "host": endpoint.host, FEATURES_HEADER: " ".join(FEATURES)}
        self._http = BoundedClient(endpoint.base_url, headers, transport)

    def close(self) -> None:
        """Give connections back."""
        self._http.close()

    def routes(self) -> tuple[RouteList, GatewayState]:
        """All routes that it knows, and what it says of itself. Raises `Unavailable`."""
        response = self._call("GET", f"/v1/routes?{ASK_JOINING}")
        return self._read(RouteList, response), GatewayState.read(response.headers)

    def state(self) -> GatewayState:
        """What it says of itself. Raises `Unavailable`."""
        return GatewayState.read(self._call("HEAD", "/v1/routes").headers)

    def declare(self, route: Route) -> RouteStatus | None:
        """Declare a route, without waiting until requests go that way; how it stands, where the gateway says so.

        Raises:
            Unavailable: it does not answer, or refuses.
        """
        path = f"/v1/routes/{route.namespace}/{route.model}"
        response = self._call("PUT", path, route.model_dump_json(), {PREFER: ASYNCHRONOUS})
        if response.status != httpx.codes.ACCEPTED:
            return None  # of a former release, which waited
        return self._read(RouteStatus, response)

    def add(self, routes: Iterable[Route]) -> None:
        """Declare those routes whose models have none there yet. Raises `Unavailable`."""
        for some in _portions(routes):
            self._call("POST", "/v1/routes", RouteSet(routes=list(some)).model_dump_json())

    def complete(self, instance: str) -> None:
        """Say that an instance has been told all routes. Raises `Unavailable`, also where another one is there now."""
        self._call("PUT", "/v1/complete", Completion(instance=instance).model_dump_json())

    def key_digests(self) -> dict[str, str]:
        """The digest of the keys that it was told of each namespace. Raises `Unavailable`."""
        return self._read(KeyDigests, self._call("GET", "/v1/keys")).digests

    def change_keys(self, change: KeyChange) -> None:
        """Tell what became of a namespace's keys, and wait until that holds. Raises `Unavailable`, also where it refuses."""
        self._call("PUT", f"/v1/keys/{change.namespace}", change.model_dump_json())

    def forget_keys(self, namespace: str) -> None:
        """Let it forget a namespace's keys. Raises `Unavailable`."""
        self._call("DELETE", f"/v1/keys/{namespace}")

    def delete(self, namespace: str, model: str) -> None:
        """Delete a route; no-op where there is none. Raises `Unavailable`."""
        self._call("DELETE", f"/v1/routes/{namespace}/{model}")

    def _read(self, kind: type[M], response: WholeAnswer) -> M:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise self._problem(f"answers in a form unknown here: {error}") from error

    def _call(
        self, method: str, path: str, content: str | None = None, extra: Mapping[str, str] | None = None
    ) -> WholeAnswer:
        extensions = {"sni_hostname": self._server_name}
        try:
            response = self._http.exchange(method, path, _BOUNDS, content=content, headers=extra, extensions=extensions)
            if response.status == httpx.codes.FORBIDDEN and self._former is not None:
                extra = {**(extra or {}), **self._former}
                response = self._http.exchange(
                    method, path, _BOUNDS, content=content, headers=extra, extensions=extensions
                )
        except httpx.HTTPError as error:
            raise self._problem(f"does not answer: {str(error) or type(error).__name__}") from error
        if response.status == httpx.codes.FORBIDDEN and method in {"GET", "HEAD"}:
            # To be told what it knows needs the operator's token, and nothing else.
            raise AnotherSecret(
                Reason.GATEWAY_UNREACHABLE,
                f"The gateway {self.address} refuses the operator's token: they run by different secrets, and requests through "
                "it get 503. Both read the gateways' Secret at their start: restart them, or see who writes it anew.",
            )
        gone = method == "DELETE" and response.status == httpx.codes.NOT_FOUND
        if not (response.is_success or gone):
            raise self._problem(f"answers HTTP {response.status} to {method} {path}: {response.excerpt()}")
        return response

    def _problem(self, what: str) -> Unavailable:
        return Unavailable(Reason.GATEWAY_UNREACHABLE, f"The gateway {self.address} {what}")


def _portions(routes: Iterable[Route]) -> Iterator[Sequence[Route]]:
    """Routes in portions that one request can carry."""
    portion: list[Route] = []
    size = 0
    for route in routes:
        length = len(route.model_dump_json())
        if portion and size + length > _TOLD_AT_ONCE_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(route)
        size += length
    if portion:
        yield portion
