"""A small OTLP/HTTP trace receiver that appends to a file, as the OpenTelemetry Collector's file exporter does."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from base64 import b64decode
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from penstock.errors import Invalid
from penstock_cli.standalone.ports import LOOPBACK

_MAX_BODY_BYTES = 64 * 1024 * 1024
_ROTATE_BYTES = 32 * 1024 * 1024
_ID_FIELDS = ("traceId", "spanId", "parentSpanId")


class TraceFile:
    """Appends requests as JSON lines; past a size the file moves to `.1`, whose predecessor goes."""

    def __init__(self, path: Path, rotate_bytes: int = _ROTATE_BYTES) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._lock = threading.Lock()

    def append(self, request: dict[str, Any]) -> None:
        """Write one export request as one line."""
        line = json.dumps(request, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._path.exists() and self._path.stat().st_size + len(line) > self._rotate_bytes:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            with self._path.open("ab") as file:
                file.write(line)


def decode_request(body: bytes, content_type: str, content_encoding: str) -> dict[str, Any]:
    """An export request's JSON form, from protobuf or JSON, gzipped or not.

    Raises:
        Invalid: the body is not what its headers say.
    """
    try:
        plain = _gunzip(body) if content_encoding == "gzip" else body
        if content_type.split(";", maxsplit=1)[0].strip() == "application/json":
            request = json.loads(plain)
            if not isinstance(request, dict):
                raise Invalid("NotOtlp", "the body is JSON but not an object")
            return request
        message = ExportTraceServiceRequest()
        message.ParseFromString(plain)
        # OTLP's JSON has ids in hex, where protobuf's JSON has bytes in base64, and enumerations as numbers.
        decoded: dict[str, Any] = MessageToDict(message, use_integers_for_enums=True)
    except (DecodeError, ParseError, OSError, EOFError, zlib.error, ValueError) as error:
        raise Invalid("NotOtlp", f"the body is not an OTLP trace request: {error}") from error
    for holder in _holders_of_ids(decoded):
        for field in _ID_FIELDS:
            if field in holder:
                holder[field] = b64decode(holder[field]).hex()
    return decoded


def _gunzip(body: bytes) -> bytes:
    """Unpack, up to the size that a plain body may have."""
    with gzip.GzipFile(fileobj=BytesIO(body)) as packed:
        plain = packed.read(_MAX_BODY_BYTES + 1)
    if len(plain) > _MAX_BODY_BYTES:
        raise Invalid("TooLarge", f"the body unpacks to more than {_MAX_BODY_BYTES} bytes")
    return plain


def _holders_of_ids(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in request.get("resourceSpans", ()):
        for scope in group.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                yield span
                yield from span.get("links", ())


class _Handler(BaseHTTPRequestHandler):
    """POST /v1/traces."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """Take one export request."""
        length = int(self.headers.get("Content-Length") or 0)
        if self.path.rstrip("/") != "/v1/traces":
            self._answer(HTTPStatus.NOT_FOUND, b"only /v1/traces is served here")
        elif not 0 < length <= _MAX_BODY_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"a Content-Length of 1 to 64 MiB is needed")
        else:
            self._take(self.rfile.read(length))

    def _take(self, body: bytes) -> None:
        content_type = self.headers.get("Content-Type", "")
        try:
            request = decode_request(body, content_type, self.headers.get("Content-Encoding", ""))
        except Invalid as error:
            self._answer(HTTPStatus.BAD_REQUEST, error.message.encode())
            return
        self.server.trace_file.append(request)
        if content_type.startswith("application/json"):
            self._answer(HTTPStatus.OK, b"{}", "application/json")
        else:
            self._answer(HTTPStatus.OK, ExportTraceServiceResponse().SerializeToString(), "application/x-protobuf")

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str = "text/plain") -> None:
        if status != HTTPStatus.OK:
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Say nothing: exporters post every few seconds."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, trace_file: TraceFile) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.trace_file = trace_file


class Collector:
    """The receiver, in a thread of this process."""

    def __init__(self, traces: Path) -> None:
        self._server = _Server(TraceFile(traces))
        self._thread = threading.Thread(target=self._server.serve_forever, name="otlp-receiver", daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """What `OTEL_EXPORTER_OTLP_ENDPOINT` must be."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
