"""A small real HTTP server with the part of Ray's REST API that the operator uses, for tests of scale.

`test_serve_rest_contract.py` holds it and a real Ray to the same behaviour. An application runs after `deploy_seconds`.
One whose import path starts with `no.such` fails to import; one with `args.fail` fails in its constructor with that text.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

NODE = "a" * 56


@dataclass
class _App:
    config: dict[str, Any]
    built_at: float
    deployed_at: float


@dataclass
class RayStandIn:
    """The server; use as a context manager."""

    token: str = "token"
    deploy_seconds: float = 0.2
    cpus: float = 1e6
    requests: dict[str, int] = field(default_factory=dict)
    """Requests by method."""

    def __post_init__(self) -> None:
        self._apps: dict[str, _App] = {}
        self._lock = threading.Lock()
        self._options: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def put(self, body: dict[str, Any]) -> None:
        now = time.time()
        with self._lock:
            if not self._options:
                self._options = {
                    "http_options": body.get("http_options", {"host": "127.0.0.1", "port": 8000}),
                    "proxy_location": body.get("proxy_location", "EveryNode"),
                }
            before, self._apps = self._apps, {}
            for config in body["applications"]:
                old = before.get(config["name"])
                same = old is not None and _code(old.config) == _code(config) and "no.such" not in config["import_path"]
                built = old.built_at if old is not None and same else now
                self._apps[config["name"]] = _App(config, built, now)

    def details(self) -> dict[str, Any]:
        with self._lock:
            return {"applications": {name: self._details(app) for name, app in self._apps.items()}, **self._options}

    def _details(self, app: _App) -> dict[str, Any]:
        status, message, deployments = "DEPLOYING", "", {}
        done = time.time() - app.built_at >= self.deploy_seconds
        failure = app.config.get("args", {}).get("fail")
        if done and app.config["import_path"].startswith("no.such"):
            status, message = "DEPLOY_FAILED", "Traceback\nModuleNotFoundError: No module named 'no'\n"
        elif done and failure:
            status, message = "DEPLOY_FAILED", "Failed to update the deployments ['replica']."
            deployments = {"replica": _deployment("DEPLOY_FAILED", f"Traceback\nRuntimeError: {failure}\n", 1, [])}
        elif done:
            status, count = "RUNNING", _replicas(app.config)
            replicas = [
                {
                    "replica_id": f"r{n}",
                    "actor_id": f"{app.built_at}-{n}",
                    "state": "RUNNING",
                    "node_id": NODE,
                    "start_time_s": app.built_at,
                }
                for n in range(count)
            ]
            deployments = {"replica": _deployment("HEALTHY", "", count, replicas)}
        return {
            "name": app.config["name"],
            "route_prefix": app.config.get("route_prefix"),
            "status": status,
            "message": message,
            "last_deployed_time_s": app.deployed_at,
            "deployed_app_config": app.config,
            "source": "declarative",
            "deployments": deployments,
        }

    def answer(self, path: str) -> dict[str, Any] | None:
        if path == "/api/serve/applications/":
            return self.details()
        if path == "/api/version":
            return {"version": "4", "ray_version": "2.60.0"}
        if path == "/nodes":
            used = {NODE: f"0.0/{self.cpus:g} CPU\n0B/1.0GiB memory"}
            return {"result": True, "data": {"summary": [], "nodeLogicalResources": used}}
        if path == "/api/v0/nodes":
            node = {
                "node_id": NODE,
                "node_ip": "127.0.0.1",
                "state": "ALIVE",
                "resources_total": {"CPU": self.cpus, "memory": 2.0**30},
                "labels": {},
            }
            return {"result": True, "data": {"result": {"total": 1, "result": [node]}}}
        if path == "/api/v0/actors":
            return {"result": True, "data": {"result": {"total": 0, "result": []}}}
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        standin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self._authorized():
                    found = standin.answer(self.path.partition("?")[0])
                    status = HTTPStatus.NOT_FOUND if found is None else HTTPStatus.OK
                    self._send(status, json.dumps(found).encode())

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self._authorized():
                    standin.put(json.loads(body))
                    self._send(HTTPStatus.OK, b"")

            def _authorized(self) -> bool:
                standin.requests[self.command] = standin.requests.get(self.command, 0) + 1
                given = self.headers.get("authorization")
                if given == f"Bearer {standin.token}":
                    return True
                self._send(HTTPStatus.FORBIDDEN if given else HTTPStatus.UNAUTHORIZED, b"no")
                return False

            def _send(self, status: HTTPStatus, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _code(config: dict[str, Any]) -> tuple[Any, ...]:
    """What Serve rebuilds an application for."""
    policies = [(each.get("autoscaling_config") or {}).get("policy") for each in config.get("deployments", ())]
    return config["import_path"], config.get("runtime_env", {}), config.get("args", {}), policies


def _replicas(config: dict[str, Any]) -> int:
    for each in config.get("deployments", ()):
        scaling = each.get("autoscaling_config")
        if scaling is not None:
            return max(1, int(scaling["min_replicas"]))
    return 1


def _deployment(status: str, message: str, target: int, replicas: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": "replica",
        "status": status,
        "status_trigger": "UNSPECIFIED",
        "message": message,
        "target_num_replicas": target,
        "replicas": replicas,
    }
