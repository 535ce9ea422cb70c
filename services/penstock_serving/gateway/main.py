"""The gateway's entry point."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import uvloop
from aiohttp import web
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, Gauge

import penstock
from penstock.addresses import join_port
from penstock.errors import Invalid, Unavailable
from penstock.routing.tokens import secret_digest
from penstock.telemetry import names
from penstock_runtime.component_metrics import ComponentMetrics
from penstock_runtime.listening import expand_host
from penstock_runtime.logs import RateLimitFilter
from penstock_runtime.spans import SpanSink
from penstock_runtime.trust import trust_named_authorities
from penstock_serving.gateway.access.admissions import Admissions
from penstock_serving.gateway.access.gatekeeper import Gatekeeper
from penstock_serving.gateway.access.issuers import Issuers
from penstock_serving.gateway.access.verification import Verification
from penstock_serving.gateway.connections import ConnectionLimiter
from penstock_serving.gateway.control.api import ControlServer, refusing_application
from penstock_serving.gateway.haproxy.access_log import AccessLog
from penstock_serving.gateway.haproxy.convergence import Convergence
from penstock_serving.gateway.haproxy.process import Haproxy, connections_within_limits, find_haproxy, require_port
from penstock_serving.gateway.haproxy.runtime_socket import announce_leaving
from penstock_serving.gateway.haproxy.scraping import Scraping
from penstock_serving.gateway.holding.data import DataServer
from penstock_serving.gateway.holding.forwarding import session_to_replicas
from penstock_serving.gateway.holding.waiting import Holding
from penstock_serving.gateway.memory import limit, max_bytes
from penstock_serving.gateway.probes import Probes
from penstock_serving.gateway.readiness import Readiness
from penstock_serving.gateway.serving import serve_haproxy, serve_network
from penstock_serving.gateway.settings import GatewaySettings, read_settings
from penstock_serving.gateway.table.registry import Registry
from penstock_serving.gateway.tls.control import ControlCertificates
from penstock_serving.gateway.tls.keeping import CertificateKeeper

logger = logging.getLogger(__name__)
_FLUSH_SECONDS = 5.0


async def _serve_control(
    stack: AsyncExitStack,
    settings: GatewaySettings,
    control: ControlServer,
    limiter: ConnectionLimiter,
    *,
    probes: Probes,
    certificates: ControlCertificates | None,
) -> None:
    """Answer replicas and the operator: in the clear, over TLS, or both; in the clear also probes without a port of their own."""
    port, host = settings.control_tls_port, settings.control_host
    plain = refusing_application(port) if settings.require_control_tls else control.application()
    if not settings.probe_port:
        probes.add_to(plain)
    await serve_network(stack, plain, limiter, host, settings.control_port)
    if certificates is not None:
        await serve_network(stack, control.application(), limiter, host, port, context=certificates.context)


def _gatekeeper(
    stack: AsyncExitStack, settings: GatewaySettings, registry: Registry, admissions: Admissions
) -> Gatekeeper:
    """Who decides of tokens that are new, with what it asks issuers by."""
    issuers = Issuers(allow_private=settings.allow_private_issuers, ca_file=settings.issuer_ca_file)
    stack.push_async_callback(issuers.close)
    verification = Verification()
    stack.callback(verification.close)
    return Gatekeeper(registry, admissions, issuers, verification, settings.default_authentication)


def _metrics(settings: GatewaySettings, log: AccessLog) -> CollectorRegistry:
    """What /metrics tells."""
    metrics = CollectorRegistry()
    for collector in (log, GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, ComponentMetrics("gateway")):
        metrics.register(collector)
    told = Gauge(
        names.METRIC_SECRET_DIGEST, "By which secret this gateway runs.", ["component", "digest"], registry=metrics
    )
    told.labels("gateway", secret_digest(settings.secret)).set(1)
    return metrics


def _keep_certificate(
    settings: GatewaySettings, folder: Path, convergence: Convergence, metrics: CollectorRegistry
) -> Coroutine[None, None, None]:
    """Have the certificate that clients see, and return what takes up a new one."""
    keeper = CertificateKeeper(settings, folder, lambda: convergence.edition)
    keeper.prepare()
    keeper.register(metrics)
    return keeper.run()


async def serve(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Run until `stop` is set.

    Raises:
        Invalid: the settings or the state on disk are unusable, or another program has the port for clients.
    """
    for address in settings.client_addresses:
        await require_port(address, settings.port)
    layout = settings.layout
    layout.run.mkdir(parents=True, exist_ok=True)
    layout.run.chmod(0o700)
    async with AsyncExitStack() as stack:
        sink = SpanSink.from_env(names.SERVICE_GATEWAY, {"service.version": penstock.__version__})
        stack.callback(sink.shutdown, _FLUSH_SECONDS)
        session = await stack.enter_async_context(session_to_replicas())
        registry = Registry(layout.routes, settings.request_timeout_seconds)
        holding = Holding(registry, session, settings.max_held_bytes, settings.max_connections)
        admissions = Admissions()
        gatekeeper = _gatekeeper(stack, settings, registry, admissions)
        log = AccessLog(
            lambda: registry.table,
            sink.emit if sink.enabled else None,
            holding.count_waiting,
            settings.default_namespace,
        )
        metrics = _metrics(settings, log)
        certificates = ControlCertificates(settings) if settings.control_tls_port else None
        if certificates is not None:
            certificates.prepare()
        trust = certificates.trust if certificates is not None else None
        haproxy = Haproxy(find_haproxy(settings), layout, log.take)
        readiness = Readiness(settings, lambda: haproxy.running and registry.taken)
        data = DataServer(
            settings, registry, holding, readiness, gatekeeper,
            session=session, trust=trust, emit=sink.emit, traced=sink.enabled,
        )  # fmt: skip
        await serve_haproxy(stack, data.application(), layout)
        limiter = ConnectionLimiter()
        control = ControlServer(settings, registry, holding, readiness, limiter.trust, certificates=certificates)
        probes = Probes(settings, readiness, metrics)
        if settings.probe_port:
            watched = Scraping(registry, session, settings.secret, trust).add_to(probes.add_to(web.Application()))
            await serve_network(stack, watched, ConnectionLimiter(), settings.probe_host, settings.probe_port)
        await _serve_control(stack, settings, control, limiter, probes=probes, certificates=certificates)

        convergence = Convergence(settings, registry, admissions, haproxy)
        works = [convergence.run(), convergence.expire(), registry.store_routes()]
        if certificates is not None:
            works.append(certificates.run())
        if settings.tls_certificate is not None:
            works.append(_keep_certificate(settings, settings.tls_certificate, convergence, metrics))
        stack.push_async_callback(_stop, haproxy, settings)
        loops = [asyncio.create_task(each) for each in works]
        await _supervise(_wait_to_leave(stop, readiness, settings), loops, registry, settings)


async def _stop(haproxy: Haproxy, settings: GatewaySettings) -> None:
    """Let HAProxy drain. No worker comes after this one, so it must not wait for one to hand requests on to."""
    if haproxy.running:
        with contextlib.suppress(Unavailable):
            await announce_leaving(settings.layout.runtime_socket)
    await haproxy.stop(settings.drain_seconds)


async def _wait_to_leave(stop: asyncio.Event, readiness: Readiness, settings: GatewaySettings) -> None:
    """Wait for the stop, and then until nobody sends new clients here any more."""
    await stop.wait()
    readiness.leaving = True
    if not settings.shutdown_delay_seconds:
        return
    logger.info("leaving in %g s", settings.shutdown_delay_seconds)
    try:
        # Clients that keep their connections find another gateway by themselves, each at the end of a request.
        await announce_leaving(settings.layout.runtime_socket)
    except Unavailable as error:
        logger.warning("%s; clients keep their connections until the end", error)
    await asyncio.sleep(settings.shutdown_delay_seconds)


async def _supervise(
    left: Coroutine[None, None, None], loops: list[asyncio.Task[None]], registry: Registry, settings: GatewaySettings
) -> None:
    """Wait for the end; a loop that ends has failed, and its exception ends the gateway."""
    ready = asyncio.create_task(_say_ready(registry, settings))
    stopped = asyncio.create_task(left)
    tasks = [*loops, ready, stopped]
    try:
        await asyncio.wait([*loops, stopped], return_when=asyncio.FIRST_COMPLETED)
        for loop in loops:
            if loop.done():
                loop.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _say_ready(registry: Registry, settings: GatewaySettings) -> None:
    await registry.wait_until_settled(60.0)
    logger.info(
        "the gateway answers at %s, its agent at %s",
        settings.url,
        join_port(settings.control_host, settings.control_port),
    )


async def _run(settings: GatewaySettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


def _warn_of_memory(settings: GatewaySettings) -> None:
    most, least = max_bytes(settings), limit()
    if least is not None and most > least:
        logger.warning(
            "with these settings this gateway may take %d MiB, and may have %d: raise its limit, or lower --max-connections or "
            "--max-held-bytes",
            most >> 20,
            least >> 20,
        )


def main() -> int:
    """Run the gateway; returns the process's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.addFilter(RateLimitFilter())
    trust_named_authorities(os.environ)
    try:
        given = read_settings(sys.argv[1:], os.environ)
        settings = replace(
            given, bound=expand_host(given.host), max_connections=connections_within_limits(given.max_connections)
        )
        _warn_of_memory(settings)
        uvloop.run(_run(settings))
    except Invalid as error:
        logger.error("%s", error)  # noqa: TRY400 -- the user's mistake needs no stack trace
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
