"""Stands between a client and a real server: counts what is asked for and sent, and breaks connections off."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Meddler:
    """What passed, and what is to go wrong."""

    port: int
    upstream: int
    sent_bytes: int = 0
    """To clients."""
    broken: int = 0
    """Connections that were broken off."""
    _after: int = 0
    _times: int = 0
    holding: bool = False
    """Whether a connection waits."""
    _hold_after: int | None = None
    _going_on: threading.Event = field(default_factory=threading.Event)
    _damaged_at: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def break_off(self, after: int, times: int) -> None:
        """Close connections once they carried so many bytes to the client."""
        self._after, self._times, self.broken = after, times, 0

    def damage(self, at: int | None) -> None:
        """Change a byte once a connection carried so many to the client; None: no more."""
        self._damaged_at = at

    def hold(self, after: int) -> None:
        """Let a connection wait once it carried so many bytes to the client."""
        self._going_on.clear()
        self._hold_after = after

    def behave(self) -> None:
        """Break nothing and count anew."""
        self.damage(None)
        self._hold_after, self.holding = None, False
        self._going_on.set()
        self.break_off(after=0, times=0)
        self.sent_bytes = 0

    def serve(self, client: socket.socket) -> None:
        """One connection."""
        with client, socket.create_connection(("127.0.0.1", self.upstream)) as server:
            answers = threading.Thread(target=self._answer, args=(server, client), daemon=True)
            answers.start()
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    server.sendall(data)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            answers.join(5)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                carried += len(data)
                if self._damaged_at is not None and carried - len(data) <= self._damaged_at < carried:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                if self._breaks(carried):
                    break
                if self._hold_after is not None and carried > self._hold_after:
                    self.holding = True
                    self._going_on.wait(60)
                with self._lock:
                    self.sent_bytes += len(data)
                client.sendall(data)
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _breaks(self, carried: int) -> bool:
        with self._lock:
            if self._times and carried > self._after:
                self._times -= 1
                self.broken += 1
                return True
            return False


@contextmanager
def meddling(upstream: int) -> Iterator[Meddler]:
    """A meddler before a port of loopback, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        meddler = Meddler(listener.getsockname()[1], upstream)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=meddler.serve, args=(client,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield meddler
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
