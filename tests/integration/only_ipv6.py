"""Gateway, replica and operator where this program finds one family of addresses: prints what answered, as JSON.

Arguments: a folder for the model; the address that it is all to be reached by.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import httpx
import numpy as np
from tests.integration.behind_gateway import behind_gateway
from tests.integration.replica_process import document, linear_weights, save_linear
from tests.ports import free_port

from penstock.addresses import join_port
from penstock_operator.health import HealthServer
from penstock_serving.replica import evacuation


def _refuses(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), 5.0):
            return False
    except OSError:
        return True


def main(folder: str, address: str) -> None:
    model = save_linear(Path(folder) / "tiny.onnx")
    probes = free_port()
    everywhere = ("--host=*", "--control-host=*", "--probe-host=*", f"--probe-port={probes}", "--own-addresses-only")
    rows = np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32)
    with behind_gateway(model, *everywhere, address=address, host=address) as served:
        answer = httpx.post(f"{served.gateway.url}/v2/models/tiny/infer", json=document(rows), timeout=30.0)
        found = np.array(answer.raise_for_status().json()["outputs"][0]["data"]).reshape(2, 10)
        health = HealthServer("*", 0, lambda: None, lambda: None)
        health.start()
        told = {
            "right": bool(np.allclose(found, rows @ linear_weights(), atol=1e-4)),
            "replica": served.replica.address.rpartition(":")[0],
            "gateway's probe": httpx.get(f"http://{join_port(address, probes)}/healthz").status_code,
            "operator's probe": httpx.get(f"http://{join_port(address, health.port)}/healthz").status_code,
            "refuses IPv4": _refuses("127.0.0.1", served.gateway.port),
        }
        health.stop()
    # A pod's name resolves; this machine's does not here, which must not end the preStop hook before replicas are told to leave.
    os.environ["RAY_ADDRESS"] = join_port(address, 1)
    socket.sethostname("no-such-host.invalid")
    refusal = str(evacuation._drain(1.0))
    print(json.dumps(told | {"Ray is not asked without a name": "name" in refusal.lower()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
