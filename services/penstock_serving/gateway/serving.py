"""How the agent answers: HAProxy on a socket of this machine, and whoever is in the network at a port."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack

from aiohttp import web

from penstock.errors import Invalid
from penstock_runtime.listening import expand_host, listen
from penstock_serving.gateway.connections import HEAD_SECONDS, ConnectionLimiter, TlsListener
from penstock_serving.gateway.layout import Layout

_BACKLOG = 1024


async def serve_haproxy(stack: AsyncExitStack, application: web.Application, layout: Layout) -> None:
    """Answer what HAProxy hands over, whose timeouts bound these connections."""
    # A body that is not read, since its request is refused, is not taken either: it may have no end.
    # Nor is one decompressed: it is the replica's, whose limit is on what comes out, and its header goes on with it.
    runner = web.AppRunner(
        application,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=1.0,
        lingering_time=0,
        auto_decompress=False,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    layout.agent_socket.unlink(missing_ok=True)
    await web.UnixSite(runner, layout.agent_socket).start()
    layout.agent_socket.chmod(0o600)


async def serve_network(
    stack: AsyncExitStack,
    application: web.Application,
    limiter: ConnectionLimiter,
    host: str,
    port: int,
    *,
    context: ssl.SSLContext | None = None,
) -> None:
    """Answer at a port that anyone in the network may reach; over TLS where there is a context for it."""
    runner = web.AppRunner(
        application,
        access_log=None,
        shutdown_timeout=1.0,
        keepalive_timeout=HEAD_SECONDS,
        lingering_time=0,
        auto_decompress=False,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    if runner.server is None:
        raise Invalid("InvalidState", "the agent's server could not be set up")
    factory = limiter.wrap(runner.server)
    if context is not None:
        for each in expand_host(host):
            stack.push_async_callback(TlsListener(listen(each, port, _BACKLOG), context, factory).close)
        return
    for each in expand_host(host):
        listener = await asyncio.get_running_loop().create_server(factory, each, port, backlog=_BACKLOG)
        stack.callback(listener.close)
