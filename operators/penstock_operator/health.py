"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from penstock_runtime.listening import expand_host, listen

_SILENT_SECONDS: Final = 5.0
"""A connection on which nothing comes for so long is ended."""

Complaint = Callable[[], str | None]
"""What is wrong, or None."""


class _Server(ThreadingHTTPServer):
    """Answers on a socket that listens already, of whichever family."""

    def __init__(self, listening: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(listening.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.port = int(listening.getsockname()[1])


class HealthServer:
    """Answers probes in a thread of its own.

    Args:
        host: address to listen on; `*`: all.
        port: 0 for any free one.
        unhealthy: says why the process should be restarted.
        unready: says why it is not ready.
    """

    def __init__(self, host: str, port: int, unhealthy: Complaint, unready: Complaint) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = _SILENT_SECONDS

            def do_GET(self) -> None:  # http.server's name
                if self.path == "/metrics":
                    self._answer(HTTPStatus.OK, generate_latest(), CONTENT_TYPE_LATEST)
                elif self.path in {"/healthz", "/readyz"}:
                    complaint = unhealthy() if self.path == "/healthz" else unready()
                    status = HTTPStatus.OK if complaint is None else HTTPStatus.SERVICE_UNAVAILABLE
                    self._answer(status, (complaint or "ok").encode(), "text/plain")
                else:
                    self._answer(HTTPStatus.NOT_FOUND, b"not found", "text/plain")

            def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Probes are not worth a line."""

        self._servers: list[_Server] = []
        for address in expand_host(host):
            listening = listen(address, self._servers[0].port if self._servers else port)
            self._servers.append(_Server(listening, Handler))
        self._threads = [
            threading.Thread(target=each.serve_forever, name="health", daemon=True) for each in self._servers
        ]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._servers[0].port

    def start(self) -> None:
        """Begin to answer."""
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        """End; idempotent only after `start`."""
        for each in self._servers:
            each.shutdown()
            each.server_close()
