"""The replica holds a place behind a gateway's agent, and gives it back before it drains."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
from tests.integration.replica_collector import Collector
from tests.integration.replica_process import document, replica, save_linear

from penstock.routing.fleet import FEATURES, ROOM
from penstock.routing.leases import LeaseGranted, ReplicaLease
from penstock.routing.tokens import replica_token, word_for
from penstock.serving.control import Drain, Drained
from penstock.telemetry.startup import start_context


class Agent:
    """The agent's side of the lease protocol: takes leases and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str, bytes]] = []
        self.features = ""
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def _take(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                agent.calls.append((self.command, self.path, self.headers["Authorization"], body))
                granted = agent.grant(self.path).model_dump_json().encode() if self.command == "PUT" else b""
                self.send_response(200 if granted else 204)
                self.send_header("Content-Length", str(len(granted)))
                self.send_header("X-Penstock-Features", agent.features)
                self.end_headers()
                self.wfile.write(granted)

            def do_POST(self) -> None:
                """Refuse. What is left unread when a connection is closed makes the system reset it, and the answer may be lost."""
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_error(501)

            do_PUT = do_DELETE = _take  # noqa: N815 -- the base class's names

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def grant(self, _path: str) -> LeaseGranted:
        """The answer to a lease."""
        return LeaseGranted(lease_seconds=5)

    def wait(self, count: int) -> None:
        deadline = time.monotonic() + 30
        while len(self.calls) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(self.calls) >= count

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def agent() -> Iterator[Agent]:
    started = Agent()
    yield started
    started.close()


def test_a_replica_renews_its_lease_and_deletes_it_when_it_drains(tmp_path: Path, agent: Agent) -> None:
    model = save_linear(tmp_path / "model.onnx")
    # Port 9 is discard: nobody listens there, and the other gateway must not suffer for it.
    gateways = ("http://127.0.0.1:9", agent.url)
    settings = {"gateways": gateways, "registration_token": "secret", "lease_seconds": 0.3, "replica_id": "a/b"}
    agent.features = ROOM
    with replica(model, **settings) as started:
        agent.wait(3)
        method, path, authorization, body = agent.calls[0]
        assert (method, path, authorization) == ("PUT", "/v1/replicas/a%2Fb", "Bearer secret")
        lease = ReplicaLease.model_validate_json(body)
        assert (lease.namespace, lease.model, lease.version, lease.revision) == ("default", "tiny", "1", "r1")
        assert lease.address == started.address
        assert lease.lease_seconds == 0.3
        assert set(json.loads(body)["stats"]) == {
            "inFlight", "queued", "queueWaitP95Seconds", "arrivalRate", "idleSeconds",
        }  # fmt: skip
        # From where the gateway has said that it knows of it.
        assert "room" not in json.loads(body)
        rooms = [json.loads(call[3]).get("room") for call in agent.calls[1:]]
        assert rooms == [{"requests": ANY, "retryAfterSeconds": 1}] * len(rooms)
        started.send(Drain())
        assert isinstance(started.read(), Drained)
        methods = [call[0] for call in agent.calls]
        assert methods.count("DELETE") == 1
        assert methods[-1] == "DELETE"


def test_a_replica_answers_its_gateways_alone(tmp_path: Path, agent: Agent) -> None:
    token = replica_token("s", "default", "tiny", "u")
    agent.features = " ".join(FEATURES)
    settings = {"gateways": (agent.url,), "registration_token": token, "lease_seconds": 0.3}
    with replica(save_linear(tmp_path / "model.onnx"), **settings) as started:
        # The second comes after the answer to the first was read.
        agent.wait(2)

        def get(path: str, headers: dict[str, str]) -> int:
            request = urllib.request.Request(f"http://{started.address}{path}", headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code

        shown = {"X-Penstock-Gateway": word_for("s", ("default", "tiny"), "u")}
        for path in ("/v2/models/tiny", "/metrics"):
            assert (get(path, shown), get(path, {})) == (200, 403)
        assert get("/v2/health/live", {}) == 200


def test_the_start_is_a_trace_of_phases_that_follow_one_another(tmp_path: Path, agent: Agent) -> None:
    collector = Collector()
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    began = time.time()
    settings = {"gateways": (agent.url,), "owner_uid": "u", "revision": "v1a", "attempted_at": int(began) - 2}
    phases = ["schedule", "spawn", "pull", "load", "warm-up", "register", "first-answer"]
    try:
        with replica(save_linear(tmp_path / "model.onnx"), environment, **settings) as started:
            collector.wait(len(phases) - 1)
            started.infer(document(np.ones((1, 64), np.float32)))
            spans = collector.wait(len(phases))
    finally:
        collector.close()
    assert [span.name for span in spans] == phases
    start = start_context("u", "v1a", 0)
    assert {span.parent_span_id for span in spans} == {start.span_id.to_bytes(8)}
    assert {span.trace_id for span in spans} == {start.trace_id.to_bytes(16)}
    ends = [span.end_time_unix_nano for span in spans]
    assert [span.start_time_unix_nano for span in spans] == [(int(began) - 2) * 1_000_000_000, *ends[:-1]]
