"""Carries TCP connections from a listening socket on the host into a network namespace of the test cluster.

    python -m tests.cluster.forward LISTENER NAMESPACE HOST PORT

LISTENER is an inherited file descriptor, NAMESPACE a file such as /proc/1/ns/net. A socket stays in the namespace where
it was made: connections are accepted in the host's, and opened from the other. Ends with the process that started it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.supervise import python

_CLONE_NEWNET = 0x40000000
_CHUNK = 1 << 18


def start(listener: socket.socket, namespace: Path, host: str, port: int) -> subprocess.Popen[bytes]:
    """Start a forwarder for a listening socket; it dies with the thread that started it."""
    arguments = (str(listener.fileno()), str(namespace), host, str(port))
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *python("tests.cluster.forward", *arguments)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[listener.fileno()], start_new_session=True,
    )  # fmt: skip


@contextmanager
def forwarded(namespace: Path, host: str, port: int) -> Iterator[int]:
    """A port on loopback that leads to an address inside the namespace, until the block ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        process = start(listener, namespace, host, port)
        try:
            yield listener.getsockname()[1]
        finally:
            process.kill()
            process.wait(10)


def enter_network(namespace: Path) -> None:
    """Move this thread into a network namespace: the sockets it makes from now on are there."""
    with namespace.open("rb") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(namespace))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except ConnectionError:
        writer.transport.abort()  # one side is gone; the other shall see that, too


async def _serve(listener: socket.socket, host: str, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(host, port)
        except OSError:
            writer.transport.abort()  # as refused as it can be once accepted
            return
        await asyncio.gather(_carry(reader, there[1]), _carry(there[0], writer))
        for each in (writer, there[1]):
            each.close()

    server = await asyncio.start_server(connected, sock=listener)
    await server.serve_forever()


def main() -> None:
    """The command line."""
    descriptor, namespace, host, port = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the process that started this one
    listener = socket.socket(fileno=int(descriptor))
    enter_network(Path(namespace))
    asyncio.run(_serve(listener, host, int(port)))


if __name__ == "__main__":
    main()
