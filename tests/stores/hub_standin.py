"""A stand-in for the Hugging Face Hub: the few calls of its API that fetching a model makes, over folders.

It is no Hub. What holds it to the real one is that the real client, `huggingface_hub`, speaks to it: the paths, the fields of
the answers and the headers of the refusals are those that this client asks for. Large files are sent on to another address,
as the Hub sends them to its CDN.
"""

from __future__ import annotations

import hashlib
import json
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE_BYTES = 1000
"""Files of this size and above are in LFS, as the Hub has it for 10 MiB."""
TOKEN = "hf_penstock_tests"
"""Opens repositories of the organization `private`."""


class HubStandIn(ThreadingHTTPServer):
    """Serves `root/ORG/REPO/REVISION/...`."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.damaged: dict[str, bytes] = {}
        """What is sent in place of a file, by its name."""


class _Handler(BaseHTTPRequestHandler):
    server: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._known(
                found[1], found[2], lambda folder: self._json({"id": found[1], "sha": _commit(folder), "siblings": []})
            )
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", path):
            self._known(found[1], found[2], lambda folder: self._tree(folder, found[3] or ""))
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._known(found[1], found[2], lambda folder: self._resolve(folder, found[3]))
        elif path.startswith("/cdn/"):
            self._content(self.server.root / path.removeprefix("/cdn/"))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/paths-info/(.+)", unquote(urlsplit(self.path).path))
        if found is None:
            self._refuse(HTTPStatus.NOT_FOUND, "")
            return
        wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
        self._known(
            found[1],
            found[2],
            lambda folder: self._json([_about(folder, each) for each in wanted if (folder / each).exists()]),
        )

    def _known(self, repo: str, revision: str, answer: Any) -> None:
        if repo.startswith("private/") and self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self._refuse(HTTPStatus.UNAUTHORIZED, "RepoNotFound")
        if not (self.server.root / repo).is_dir():
            return self._refuse(HTTPStatus.NOT_FOUND, "RepoNotFound")
        for folder in (self.server.root / repo).iterdir():
            if revision in (folder.name, _commit(folder)):
                return answer(folder)
        return self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")

    def _tree(self, folder: Path, below: str) -> None:
        if not (folder / below).is_dir():
            return self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound")
        found = sorted(each.relative_to(folder).as_posix() for each in (folder / below).rglob("*"))
        return self._json([_about(folder, each) for each in found])

    def _resolve(self, folder: Path, name: str) -> None:
        file = folder / name
        if not file.is_file():
            return self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound")
        if file.stat().st_size < LARGE_BYTES:
            return self._content(file)
        self.send_response(HTTPStatus.FOUND)
        self.send_header("Location", f"/cdn/{file.relative_to(self.server.root).as_posix()}")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _content(self, file: Path) -> None:
        content = self.server.damaged.get(file.name) or file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(asked[1]) if asked else 0
        self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:])

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: HTTPStatus, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _about(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40}
    content = path.read_bytes()
    oid = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    about: dict[str, Any] = {"type": "file", "path": name, "oid": oid, "size": len(content)}
    if len(content) >= LARGE_BYTES:
        about["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return about


def _commit(folder: Path) -> str:
    """Forty hex digits that change with the content."""
    lines = [f"{each.relative_to(folder)} {each.stat().st_mtime_ns}" for each in sorted(folder.rglob("*"))]
    return hashlib.sha1("\n".join(lines).encode()).hexdigest()
