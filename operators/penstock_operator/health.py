"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

_SILENT_SECONDS: Final = 5.0
"""A connection on which nothing comes for so long is ended."""

Complaint = Callable[[], str | None]
"""What is wrong, or None."""


class HealthServer:
    """Answers probes in a thread of its own.

    Args:
        host: address to listen on.
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

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End; idempotent only after `start`."""
        self._server.shutdown()
        self._server.server_close()
