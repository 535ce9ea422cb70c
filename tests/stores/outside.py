"""What stands between a cluster and the stores outside of it: a proxy, and TLS by an authority of the house's own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.certificates import Authority

_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Proxy:
    """Carries connections that are asked for by CONNECT to one port of loopback, whatever name they are for."""

    upstream: int
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """First lines of requests, without the version."""
    refusal: str = ""
    """What is answered instead, such as `403 Forbidden`."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.split(b"\r\n", 1)[0].decode().rpartition(" ")[0]
        self.asked.append(line)
        if self.refusal or not line.startswith("CONNECT "):
            status = self.refusal or "405 Method Not Allowed"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _join(reader, writer, self.upstream)


@contextmanager
def tls_before(port: int, authority: Authority, name: str, folder: Path) -> Iterator[int]:
    """A port of loopback that speaks TLS, by a certificate for a name, before one that does not."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    pair = authority.sign(name).write(folder)
    context.load_cert_chain(pair / "tls.crt", pair / "tls.key")
    with _listening(lambda reader, writer: _join(reader, writer, port), context) as own:
        yield own


@contextmanager
def proxying(upstream: int) -> Iterator[Proxy]:
    """A proxy before a port of loopback."""
    proxy = Proxy(upstream)
    with _listening(proxy.serve) as port:
        proxy.port = port
        yield proxy


@contextmanager
def _listening(handle: _Handler, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server in an event loop of its own, until the block ends."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    starting = asyncio.start_server(guarded, "127.0.0.1", 0, ssl=context)
    server = asyncio.run_coroutine_threadsafe(starting, loop).result(60)

    async def end() -> None:
        server.close()
        own = asyncio.current_task()
        running = [each for each in asyncio.all_tasks() if each is not own]
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """A connection to a port of loopback that carries all that comes by another."""
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))
    finally:
        far_writer.close()


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()
