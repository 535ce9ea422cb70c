"""From an `APIKey` object to what the gateway answers: an operator on an embedded store, and a real gateway."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.contract.ray_rest_standin import RayStandIn
from tests.integration.operator_parts import GATEWAY_SECRET, GatewayProcess, gateway_process
from tests.waiting import eventually

from penstock.api.access import Authentication
from penstock.routing.tokens import replica_token
from penstock_operator.kinds import API_KEY, INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.operation import Operation
from penstock_operator.runtime.cluster import SECRET, Key
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.settings import Settings


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the base class's name
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def replica(gateway: GatewayProcess, revision: str) -> Iterator[None]:
    """A replica of `default/digits` that answers anything."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    lease = {
        "namespace": "default", "model": "digits", "version": "1", "revision": revision,
        "address": f"127.0.0.1:{server.server_address[1]}", "leaseSeconds": 60,
    }  # fmt: skip
    request = urllib.request.Request(
        f"{gateway.agent_url}/v1/replicas/r",
        data=json.dumps(lease).encode(),
        method="PUT",
        headers={"authorization": f"Bearer {replica_token(GATEWAY_SECRET, 'default', 'digits')}"},
    )
    try:
        urllib.request.urlopen(request, timeout=20).close()
        yield
    finally:
        server.shutdown()
        server.server_close()


def status(gateway: GatewayProcess, secret: str) -> int:
    headers = {"authorization": f"Bearer {secret}"}
    request = urllib.request.Request(f"{gateway.url}/v2/models/digits", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError:
        return 0  # it is starting


def key(secret: str, **more: Any) -> dict[str, Any]:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    metadata = {"name": "alice", "namespace": "default"}
    return {
        "apiVersion": API_KEY.api_version, "kind": API_KEY.kind, "metadata": metadata, "spec": {"sha256": digest, **more}
    }  # fmt: skip


def test_a_key_opens_and_closes_with_its_object_even_where_the_pool_is_gone(tmp_path: Path) -> None:
    cluster = EmbeddedCluster(tmp_path / "cluster.sqlite")
    # A socket's path must be short.
    with RayStandIn() as ray, TemporaryDirectory(prefix="gw-") as folder, gateway_process(Path(folder)) as gateway:
        token = {"metadata": {"name": "ray", "namespace": "default"}, "stringData": {"token": ray.token}}
        cluster.apply(SECRET, token, "test")
        existing = {"address": ray.url, "tokenSecretRef": {"name": "ray", "key": "token"}}
        pool = {
            "apiVersion": SERVING_POOL.api_version,
            "kind": SERVING_POOL.kind,
            "metadata": {"name": "default", "namespace": "default"},
            "spec": {"existing": existing},
        }
        deployment = {
            "apiVersion": INFERENCE_DEPLOYMENT.api_version,
            "kind": INFERENCE_DEPLOYMENT.kind,
            "metadata": {"name": "digits", "namespace": "default"},
            "spec": {"model": {"storageUri": "file:///models/1", "modelFormat": "onnx"}},
        }
        cluster.apply(SERVING_POOL, pool, "test")
        cluster.apply(INFERENCE_DEPLOYMENT, deployment, "test")
        settings = Settings(
            workers=4,
            gateways=(gateway.agent_url,),
            gateway_secret=GATEWAY_SECRET,
            default_authentication=Authentication.REQUIRED,
        )
        operation = Operation(cluster, settings, lambda *_: None, lambda: True)
        operation.start()
        try:
            eventually(lambda: status(gateway, "pk_a") == 401, "the model is closed")
            found = cluster.get(INFERENCE_DEPLOYMENT, Key("default", "digits")) or {}
            revision = found["status"].get("activeRevision") or found["status"]["candidateRevision"]
            with replica(gateway, revision):
                _open_and_close(cluster, gateway)
        finally:
            assert operation.stop(60)
    cluster.close()


def _open_and_close(cluster: EmbeddedCluster, gateway: GatewayProcess) -> None:
    def ready() -> str:
        conditions = ((cluster.get(API_KEY, Key("default", "alice")) or {}).get("status") or {}).get("conditions")
        return str(conditions[0]["reason"]) if conditions else ""

    cluster.apply(API_KEY, key("pk_a"), "test")
    eventually(lambda: status(gateway, "pk_a") == 200, "a key that was made opens")
    eventually(lambda: ready() == "KeyAccepted", "the key says so")
    cluster.apply(API_KEY, key("pk_a", deployments=["letters"]), "test")
    eventually(lambda: status(gateway, "pk_a") == 401, "a key to something else does not open")
    cluster.apply(API_KEY, key("pk_a"), "test")
    eventually(lambda: status(gateway, "pk_a") == 200, "it opens again")
    cluster.delete(SERVING_POOL, Key("default", "default"))
    cluster.apply(API_KEY, key("pk_a", disabled=True), "test")
    eventually(lambda: status(gateway, "pk_a") == 401, "a disabled key closes, whatever the pool does")
    eventually(lambda: ready() == "KeyDisabled", "the key says so")
    cluster.apply(API_KEY, key("pk_a"), "test")
    eventually(lambda: status(gateway, "pk_a") == 200, "it opens again")
    cluster.delete(API_KEY, Key("default", "alice"))
    eventually(lambda: status(gateway, "pk_a") == 401, "a deleted key closes")
