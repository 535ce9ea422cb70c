"""What an answer costs through the gateway by protocol: JSON and binary tensors over REST, raw contents over gRPC, interleaved.

CPU is summed over the replica's server, HAProxy and the agent. All three ask the same model, with the same values, by the same
gateway in the same run.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tests.benchmarks import parts, processes, report
from tests.benchmarks.grpc_load import run_grpc_load
from tests.benchmarks.load import LoadResult, run_load
from tests.integration.replica_process import fresh_replica as replica

from penstock.routing.tokens import former_replica_token
from penstock_serving.rpc.schema import ModelInferRequest

IN_FLIGHT = (1, 16, 64)
JSON, BINARY, GRPC = "REST, JSON", "REST, binary tensors", "gRPC"


def main(seconds: float = 4.0, rounds: int = 3) -> None:
    """Measure, and publish `protocols`."""
    with tempfile.TemporaryDirectory(prefix="pbench") as folder, ExitStack() as stack:
        home = Path(folder)
        model = parts.dense_model(home / "tiny" / "model.onnx", (64, 10))
        edge = stack.enter_context(parts.gateway(home / "gateway", {"OTEL_SDK_DISABLED": "true"}))
        token = former_replica_token(edge.secret, "default", "tiny")
        serving = stack.enter_context(replica(model, gateways=(edge.control_url,), registration_token=token))
        parts.until("the replica's lease", lambda: edge.receiving("default", "tiny"))
        servers = {"replica": (serving.process.pid,), "gateway": tuple(processes.descendants(edge.pid))}
        processes.pin(sum(servers.values(), ()))
        results = _measure(home, edge.url, servers, seconds, rounds)
    report.publish(
        "protocols",
        f"CPU of an answer through the gateway, model 64 → 10 (medians of {rounds} interleaved rounds of {seconds:g} s)",
        _rows(results),
        ["all server processes on the first core, the client on the second.", "gRPC: all calls on one connection."],
    )


def _measure(
    home: Path, url: str, servers: dict[str, tuple[int, ...]], seconds: float, rounds: int
) -> dict[tuple[str, int, str], list[LoadResult]]:
    values = np.array(json.loads(parts.request_body())["inputs"][0]["data"], np.float32).reshape(1, 64)
    tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 64]}
    bodies = {name: home / name for name in (JSON, BINARY, GRPC)}
    bodies[JSON].write_bytes(parts.request_body())
    head = json.dumps(
        {
            "inputs": [tensor | {"parameters": {"binary_data_size": values.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    bodies[BINARY].write_bytes(head + values.tobytes())
    message = ModelInferRequest(model_name="tiny", inputs=[tensor], raw_input_contents=[values.tobytes()])
    bodies[GRPC].write_bytes(message.SerializeToString())
    client = str(max(os.sched_getaffinity(0)))
    results: dict[tuple[str, int, str], list[LoadResult]] = {}
    # The processes are told apart, since each has its own part in the difference.
    cases = [(name, count, who) for name in bodies for count in IN_FLIGHT for who in servers]
    for number in range(rounds):
        random.shuffle(cases)
        report.progress(f"round {number + 1} of {rounds}")
        for name, count, who in cases:
            if name == GRPC:
                address = url.removeprefix("http://")
                result = run_grpc_load(
                    address, bodies[name], calls=count, seconds=seconds, pids=servers[who], cpus=client
                )
            else:
                headers = [("Inference-Header-Content-Length", str(len(head)))] if name == BINARY else []
                result = run_load(
                    f"{url}/v2/models/tiny/infer", bodies[name], connections=count, seconds=seconds,
                    pids=servers[who], cpus=client, headers=headers,
                )  # fmt: skip
            if result.errors:
                raise RuntimeError(f"{name} at {count}: {result.errors} errors")
            results.setdefault((name, count, who), []).append(result)
    return results


def _rows(results: dict[tuple[str, int, str], list[LoadResult]]) -> list[dict[str, Any]]:
    def cpu(name: str, count: int, who: str) -> float:
        return statistics.median(each.cpu_us_per_answer for each in results[name, count, who])

    def whole(name: str, count: int) -> float:
        return cpu(name, count, "replica") + cpu(name, count, "gateway")

    return [
        {
            "in flight": count,
            "protocol": name,
            "replica µs": round(cpu(name, count, "replica"), 1),
            "gateway µs": round(cpu(name, count, "gateway"), 1),
            "CPU µs/answer": round(whole(name, count), 1),
            "× JSON": round(whole(name, count) / whole(JSON, count), 2),
            "answers/s": round(
                statistics.median(
                    each.requests_per_second for who in ("replica", "gateway") for each in results[name, count, who]
                )
            ),
        }
        for count in IN_FLIGHT
        for name in (JSON, BINARY, GRPC)
    ]


if __name__ == "__main__":
    main()
