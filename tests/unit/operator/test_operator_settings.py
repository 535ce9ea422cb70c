"""The operator's command line, log lines, health server and readings of Ray."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.telling import assert_tells, telling

from penstock.errors import Invalid
from penstock_operator.clients.ray import ApplicationDetails, PoolUnreachable, RayClient, application
from penstock_operator.command_line import read
from penstock_operator.deployment.observed import ApplicationState
from penstock_operator.health import HealthServer
from penstock_operator.main import KeyValueFormatter, main
from penstock_operator.settings import Settings

REFUSED = [
    ("a store and a kubeconfig", ["--standalone", "s", "--kubeconfig", "k"], "--standalone --kubeconfig"),
    ("a gateway without a secret", ["--gateway", "http://g"], "--gateway-secret-file"),
    ("a gateway over TLS without a secret", ["--gateway-over-tls", "https://g"], "--gateway-secret-file"),
    ("no worker", ["--workers", "0"], "--workers"),
    ("no body", ["--max-body-bytes", "0"], "--max-body-bytes"),
    (
        "a secret file that is not there",
        ["--gateway-secret-file", "/nonexistent"],
        "--gateway-secret-file /nonexistent",
    ),
]


@pytest.mark.parametrize(("arguments", "facts"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(arguments: list[str], facts: str) -> None:
    with pytest.raises(Invalid, match=telling(facts)):
        read(arguments)


def test_what_is_wrong_with_the_command_line_is_one_sentence_and_status_2(caplog: pytest.LogCaptureFixture) -> None:
    assert main(["--workers", "0"]) == 2
    assert_tells(caplog.text, "--workers 1")


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(Invalid, match="is empty"):
        read(["--gateway-secret-file", str(tmp_path / "secret")])


def test_a_gateway_over_tls_is_one_of_https(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    with pytest.raises(Invalid, match=telling("--gateway-over-tls http://g https")):
        read(["--gateway-over-tls", "http://g", "--gateway-secret-file", str(tmp_path / "secret")])


def test_several_gateways_and_the_secret_are_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    settings = read(
        ["--gateway", "http://a/", "--gateway", "http://b", "--gateway-secret-file", str(tmp_path / "secret")]
    )
    assert settings.gateways == ("http://a", "http://b")
    assert settings.gateway_secret == "s3cret"


def test_on_one_machine_replicas_listen_on_loopback() -> None:
    assert read(["--standalone", "store"]).replica_host == "127.0.0.1"
    assert read([]).replica_host is None


def test_each_process_has_an_identity_of_its_own() -> None:
    assert read([]).identity
    assert read(["--identity", "me"]).identity == "me"
    assert Settings().health_host == "127.0.0.1"


def test_a_log_line_is_key_value_even_with_quotes_and_newlines() -> None:
    record = logging.LogRecord("a.b", logging.WARNING, __file__, 1, 'he said "%s"\nand left', ("no",), None)
    line = KeyValueFormatter().format(record)
    assert line.splitlines() == [line]
    assert line.endswith('level=warning logger=a.b msg="he said \\"no\\"\\nand left"')


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_probes_tell_what_is_wrong() -> None:
    server = HealthServer("127.0.0.1", 0, lambda: None, lambda: "not listed yet")
    server.start()
    try:
        assert fetch(server.port, "/healthz") == (200, "ok")
        assert fetch(server.port, "/readyz") == (503, "not listed yet")
        assert fetch(server.port, "/metrics")[0] == 200
        assert fetch(server.port, "/else")[0] == 404
    finally:
        server.stop()


def client(answers: dict[str, Any]) -> RayClient:
    def answer(request: httpx.Request) -> httpx.Response:
        body = answers.get(request.url.path)
        return httpx.Response(404) if body is None else httpx.Response(200, text=json.dumps(body))

    return RayClient("http://ray:8265", None, httpx.MockTransport(answer))


NODE = {
    "node_id": "n1",
    "node_ip": "10.0.0.1",
    "resources_total": {"CPU": 8.0, "memory": 2.0**34},
    "labels": {"a": "b"},
}
LISTED = {
    "/api/v0/nodes": {
        "data": {"result": {"result": [{**NODE, "state": "ALIVE"}, {**NODE, "node_id": "n2", "state": "DEAD"}]}}
    },
    "/nodes": {
        "data": {"nodeLogicalResources": {"n1": "3.5/8.0 CPU\n4.0GiB/16.0GiB memory\n0B/95.37MiB object_store"}}
    },
}


def test_free_resources_are_read_from_ray_s_text_and_dead_nodes_left_out() -> None:
    (node,) = client(LISTED).nodes()
    assert node.available == {"CPU": 4.5, "memory": 12 * 2.0**30}
    assert node.labels == {"a": "b"}


def test_an_answer_in_another_form_is_a_pool_that_cannot_be_used() -> None:
    with pytest.raises(PoolUnreachable, match="form unknown"):
        client({"/api/v0/nodes": {"data": None}, "/nodes": {}}).nodes()
    with pytest.raises(PoolUnreachable, match="HTTP 404"):
        client({}).version()


def test_replicas_are_counted_and_the_longest_waiting_is_told() -> None:
    replicas = [
        {"state": "RUNNING", "node_id": "n", "start_time_s": 1},
        {"state": "STARTING", "node_id": None, "start_time_s": 30},
        {"state": "STARTING", "start_time_s": 20},
        {"state": "STOPPING", "node_id": "n", "start_time_s": 2},
    ]
    details = ApplicationDetails.model_validate(
        {
            "name": "a",
            "status": "DEPLOYING",
            "message": "of the app",
            "deployments": {
                "replica": {"status": "U", "message": "of it", "target_num_replicas": 3, "replicas": replicas}
            },
        }
    )
    read_application = application(details)
    assert (read_application.running, read_application.wanted, read_application.waiting_since) == (1, 3, 20)
    assert read_application.message == "of the app\nof it"
    assert read_application.state is ApplicationState.DEPLOYING


OURS = "penstock_serving.replica.app:build"
FOREIGN = [
    ("another import path", {"import_path": "x:y", "args": {}}),
    ("our import path without our arguments", {"import_path": OURS, "args": {}}),
    ("no echo", None),
]


@pytest.mark.parametrize("config", [row[1] for row in FOREIGN], ids=[row[0] for row in FOREIGN])
def test_is_not_ours(config: dict[str, Any] | None) -> None:
    details = ApplicationDetails(name="a", status=ApplicationState.RUNNING, deployed_app_config=config)
    assert application(details).arguments is None
