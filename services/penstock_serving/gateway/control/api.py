"""The control API of `penstock.routing.leases`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from penstock.routing.leases import Completion
from penstock_serving.gateway.control.callers import Callers, RequestRefused, error_middleware, read_body
from penstock_serving.gateway.control.keys import KeyHandlers
from penstock_serving.gateway.control.replicas import ReplicaHandlers
from penstock_serving.gateway.control.routes import RouteHandlers
from penstock_serving.gateway.holding.waiting import Holding
from penstock_serving.gateway.readiness import Readiness
from penstock_serving.gateway.settings import GatewaySettings
from penstock_serving.gateway.table.registry import Registry
from penstock_serving.gateway.tls.control import ControlCertificates

_COMPLETION_BYTES = 4 * 1024
_SETTLE_SECONDS = 10.0


class ControlServer:
    """Leases from replicas, routes from the operator.

    Args:
        settings: the gateway's.
        registry: what is changed.
        holding: says what waits.
        readiness: of this gateway.
        trust: told of each connection on which a token was shown that holds.
        certificates: that replicas are granted; None: none are.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        registry: Registry,
        holding: Holding,
        readiness: Readiness,
        trust: Callable[[asyncio.BaseTransport | None], None] = lambda _: None,
        *,
        certificates: ControlCertificates | None = None,
    ) -> None:
        self._callers = Callers(settings, trust)
        self._registry = registry
        self._readiness = readiness
        self._handlers = (
            ReplicaHandlers(settings, registry, self._callers, certificates),
            RouteHandlers(settings, registry, holding, readiness, self._callers),
            KeyHandlers(registry, self._callers),
        )

    def application(self) -> web.Application:
        """The aiohttp application. Its runner must leave bodies as they come, compressed ones too."""
        application = web.Application(middlewares=[error_middleware])
        for each in self._handlers:
            application.add_routes(each.routes())
        application.add_routes([web.put("/v1/complete", self._put_complete)])
        return application

    async def _put_complete(self, request: web.Request) -> web.Response:
        self._callers.require_operator(request)
        instance = Completion.model_validate_json(await read_body(request, _COMPLETION_BYTES)).instance
        # What was declared without waiting may be under way to HAProxy still.
        await self._registry.wait_until_settled(_SETTLE_SECONDS)
        self._readiness.note_completion(instance)
        return web.Response(status=204)


def refusing_application(port: int) -> web.Application:
    """What the plain control port says where TLS is required: nothing that is sent there is looked at.

    Args:
        port: where TLS is spoken.
    """

    async def refuse(_: web.Request) -> web.StreamResponse:
        raise RequestRefused(403, f"this gateway is told nothing in the clear: speak TLS, at port {port}")

    application = web.Application(middlewares=[error_middleware])
    application.router.add_route("*", "/v1/{path:.*}", refuse)
    return application
