"""What a kubelet and Prometheus ask, without a token: `/healthz`, `/readyz` and `/metrics`.

They are on the control port unless they have a port of their own. In a cluster they should: metrics name every tenant's
models, and replicas may reach the control port.
"""

from __future__ import annotations

import logging

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from penstock_serving.gateway.readiness import Readiness
from penstock_serving.gateway.settings import GatewaySettings

logger = logging.getLogger(__name__)
_EXPORTER_URL = "http://haproxy/metrics?scope=global&scope=frontend"
"""Not the backends: there are two for each slot, mostly empty, and their names say nothing."""
_EXPORTER_SECONDS = 5.0


class Probes:
    """Answers probes and scrapes."""

    def __init__(self, settings: GatewaySettings, readiness: Readiness, metrics: CollectorRegistry) -> None:
        self._settings = settings
        self._readiness = readiness
        self._metrics = metrics

    def add_to(self, application: web.Application) -> web.Application:
        """The application, with these paths."""
        application.add_routes(
            [
                web.get("/healthz", self._get_health),
                web.get("/readyz", self._get_readiness),
                web.get("/metrics", self._get_metrics),
            ]
        )
        return application

    async def _get_health(self, _: web.Request) -> web.Response:
        """That this is answered says enough: where HAProxy or a loop fails for good, the process ends."""
        return web.Response(text="ok")

    async def _get_readiness(self, _: web.Request) -> web.Response:
        complaint = self._readiness.complaint()
        return web.Response(text=complaint or "ok", status=200 if complaint is None else 503)

    async def _get_metrics(self, _: web.Request) -> web.Response:
        own = generate_latest(self._metrics).decode()
        return web.Response(text=own + await self._haproxy_metrics(), content_type="text/plain", charset="utf-8")

    async def _haproxy_metrics(self) -> str:
        connector = aiohttp.UnixConnector(str(self._settings.layout.metrics_socket))
        timeout = aiohttp.ClientTimeout(total=_EXPORTER_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get(_EXPORTER_URL) as response,
            ):
                return await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.warning("HAProxy's metrics are missing: %r", error)
            return ""
