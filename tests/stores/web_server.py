"""A web server over a folder, with ranges, ETags and, where asked for, a password."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

Server = TypeVar("Server", bound=ThreadingHTTPServer)


class FolderServer(ThreadingHTTPServer):
    """Serves the files of a folder."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.token: str | None = None
        """Asked for below `/private/`."""
        self.ranges = True
        """Whether it knows `Range`."""
        self.heads = True
        """Whether it knows HEAD."""
        self.stamps = True
        """Whether it sends an ETag."""
        self.dates = False
        """Whether it sends Last-Modified."""
        self.lengths = True
        """Whether it says how long a file is."""
        self.closed = False
        """Whether every answer is 403."""
        self.unwell = 0
        """So many answers are 503."""


class _Handler(BaseHTTPRequestHandler):
    server: FolderServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        if self.server.heads:
            self._answer(body=False)
        else:
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        file = self.server.root / path
        if self.server.closed:
            return self._refuse(HTTPStatus.FORBIDDEN)
        if self.server.unwell > 0:
            self.server.unwell -= 1
            return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        if path.startswith("private/") and self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self._refuse(HTTPStatus.UNAUTHORIZED)
        if not file.is_file():
            return self._refuse(HTTPStatus.NOT_FOUND)
        return self._file(file, body=body)

    def _file(self, file: Path, *, body: bool) -> None:
        content = file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "") if self.server.ranges else None
        stamp = f'"{hashlib.sha1(content).hexdigest()}"'
        if self.headers["If-Range"] not in (None, stamp):
            asked = None
        start = int(asked[1]) if asked else 0
        if asked and start >= len(content):
            return self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
        if self.server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        if self.server.stamps:
            self.send_header("ETag", stamp)
        if self.server.dates:
            self.send_header("Last-Modified", self.date_time_string(int(file.stat().st_mtime)))
        self.end_headers()
        if body:
            self._send(content[start:])
        return None

    def _send(self, content: bytes) -> None:
        chunked = b"%x\r\n" % len(content) + content + b"\r\n0\r\n\r\n"
        with contextlib.suppress(ConnectionError):  # who has seen enough goes
            self.wfile.write(content if self.server.lengths else chunked)

    def _refuse(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """The server, answering, until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
