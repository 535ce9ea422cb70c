"""The gateway agents' control API, as the operator uses it."""

from __future__ import annotations

from typing import Final

import httpx
from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Unavailable
from penstock.routing.leases import Route, RouteList

_SECONDS: Final = 5.0


class GatewayClient:
    """One gateway's agent. Safe for several threads.

    Args:
        address: base URL of the agent.
        token: the admin token.
        transport: for tests that answer in-process.
    """

    def __init__(self, address: str, token: str, transport: httpx.BaseTransport | None = None) -> None:
        self.address = address.rstrip("/")
        self._http = httpx.Client(
            base_url=self.address,
            headers={"authorization": f"Bearer {token}"},
            timeout=_SECONDS,
            transport=transport,
            trust_env=False,
        )

    def close(self) -> None:
        """Give connections back."""
        self._http.close()

    def routes(self) -> RouteList:
        """All routes that it knows. Raises `Unavailable`."""
        try:
            return RouteList.model_validate_json(self._call("GET", "/v1/routes").content)
        except ValidationError as error:
            raise self._problem(f"answers in a form unknown here: {error}") from error

    def declare(self, route: Route) -> None:
        """Declare a route. Raises `Unavailable`."""
        path = f"/v1/routes/{route.namespace}/{route.model}"
        self._call("PUT", path, route.model_dump_json())

    def delete(self, namespace: str, model: str) -> None:
        """Delete a route; no-op where there is none. Raises `Unavailable`."""
        self._call("DELETE", f"/v1/routes/{namespace}/{model}")

    def _call(self, method: str, path: str, content: str | None = None) -> httpx.Response:
        headers = {"content-type": "application/json"} if content is not None else {}
        try:
            response = self._http.request(method, path, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise self._problem(f"does not answer: {error or type(error).__name__}") from error
        gone = method == "DELETE" and response.status_code == httpx.codes.NOT_FOUND
        if response.is_error and not gone:
            raise self._problem(f"answers HTTP {response.status_code} to {method} {path}: {response.text[:200]}")
        return response

    def _problem(self, what: str) -> Unavailable:
        return Unavailable(Reason.GATEWAY_UNREACHABLE, f"The gateway {self.address} {what}")
