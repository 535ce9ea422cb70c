"""Penstock beside its peers, all in one interleaved run: `make bench-peers`.

Each peer is installed in an environment of its own and serves the same model by ONNX Runtime with one thread. Its first answer
is compared with the model's own, so that what is fast is also right. CPU is summed over all of a server's processes. Penstock's
gateway asks for an API key. The client has the second core for itself; `--free` binds no server to the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tests.benchmarks import data_path, parts, processes, report
from tests.benchmarks.data_path import GATEWAY, REPLICA, Subject
from tests.benchmarks.load import LoadResult
from tests.benchmarks.peers.environments import PEERS, Peer, install
from tests.integration.local_ray import local_ray
from tests.ports import free_ports

_KEY = "pk_" + "b" * 43
_START_SECONDS = 120.0


@dataclass(frozen=True)
class BenchModel:
    """What all of them serve."""

    name: str
    widths: tuple[int, ...]


MODELS = (BenchModel("tiny", (64, 10)), BenchModel("MLP", (256, 2048, 2048, 2048, 10)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and publish `peers`."""
    options = parser().parse_args(arguments)
    pythons = {}
    for peer in PEERS:
        report.progress(f"environment of {peer.name}")
        try:
            pythons[peer] = install(peer)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            report.progress(f"{peer.name} is left out: it cannot be installed here ({error})")
    rows: list[dict[str, Any]] = []
    for model in MODELS:
        if model.name in options.models:
            rows += _measure(model, pythons, options)
    report.publish(
        "peers",
        f"Penstock beside its peers: ONNX Runtime with one thread, JSON, servers {'free' if options.free else 'on one core'} "
        f"(medians of {options.rounds} interleaved rounds of {options.seconds:g} s)",
        rows,
        [f"The model's own time at batch 1 and 32: {_engine_times()}"],
    )


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--connections", type=int, nargs="*", default=[1, 16, 64, 256])
    options.add_argument("--models", nargs="*", default=[model.name for model in MODELS])
    options.add_argument("--free", action="store_true", help="bind no server to a core")
    return options


def _measure(model: BenchModel, pythons: dict[Peer, Path], options: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="pbench") as folder, ExitStack() as stack:
        home = Path(folder)
        path = parts.dense_model(home / "tiny" / "model.onnx", model.widths)
        body = home / "body.json"
        body.write_bytes(parts.request_body(model.widths[0]))
        report.progress(f"{model.name}: starting {len(pythons)} peers, Ray and the gateway")
        ray = stack.enter_context(local_ray(environment={"PYTHONPATH": str(Path.cwd())}))
        subjects, _ = data_path.start(stack, ray, home, path, _KEY)
        for peer, python in pythons.items():
            subjects.append(_start(stack, peer, python, path, home))
        for subject in subjects:
            _check(subject, path, body)
        data_path.pin(subjects, pinned=not options.free)
        results = data_path.measure(
            subjects, body, options.seconds, options.rounds, pinned=not options.free, connections=options.connections
        )
        return [
            row
            for count in options.connections
            for row in _rows(model, [each.name for each in subjects], count, results)
        ]


def _start(stack: ExitStack, peer: Peer, python: Path, model: Path, home: Path) -> Subject:
    port, *_ = free_ports(3)
    log = home / f"{peer.script}-{port}.log"
    child = stack.enter_context(parts.process(peer.command(python, model, port), log))
    url = f"http://127.0.0.1:{port}{peer.path}"
    question = json.loads(parts.request_body(_width(model)))
    try:
        parts.until(peer.name, lambda: parts.http_json(url, "POST", question), _START_SECONDS, pause=0.5)
    except TimeoutError as error:
        raise RuntimeError(f"{peer.name} does not start: {log.read_text()[-2000:]}") from error
    return Subject(peer.name, url, tuple(processes.descendants(child.pid)))


def _width(model: Path) -> int:
    return int(ort.InferenceSession(str(model), providers=["CPUExecutionProvider"]).get_inputs()[0].shape[1])


def _check(subject: Subject, model: Path, body: Path) -> None:
    """Compare an answer with the model's own.

    Raises:
        RuntimeError: it is another.
    """
    question = json.loads(body.read_bytes())
    given = np.asarray(question["inputs"][0]["data"], np.float32)[None]
    (expected,) = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(None, {"x": given})
    key = dict(subject.headers).get("Authorization", "").removeprefix("Bearer ") or None
    answer = parts.until(subject.name, lambda: parts.http_json(subject.url, "POST", question, key), 60)
    found = np.asarray(answer["outputs"][0]["data"], np.float32).reshape(expected.shape)
    if not np.allclose(found, expected, rtol=1e-3, atol=1e-4):
        raise RuntimeError(f"{subject.name} answers {found}, the model {expected}")


def _rows(
    model: BenchModel, names: Sequence[str], count: int, results: dict[tuple[str, int], list[LoadResult]]
) -> list[dict[str, Any]]:
    def median(name: str, field: str) -> float:
        return statistics.median(getattr(result, field) for result in results[name, count])

    def row(name: str) -> dict[str, Any]:
        cpu = median(name, "cpu_us_per_answer")
        return {
            "model": model.name,
            "connections": count,
            "server": f"Penstock, {name}" if name in {REPLICA, GATEWAY} else name,
            "CPU µs/answer": round(cpu, 1),
            "× gateway": round(cpu / median(GATEWAY, "cpu_us_per_answer"), 2),
            "requests/s": round(median(name, "requests_per_second")),
            "p50 ms": round(median(name, "p50_ms"), 2),
            "p99 ms": round(median(name, "p99_ms"), 2),
        }

    return sorted(map(row, names), key=lambda each: each["CPU µs/answer"])


def _engine_times() -> str:
    told = []
    with tempfile.TemporaryDirectory(prefix="pbench") as folder:
        for model in MODELS:
            path = parts.dense_model(Path(folder) / model.name / "model.onnx", model.widths)
            options = ort.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for rows in (1, 32):
                given = {"x": np.zeros((rows, model.widths[0]), np.float32)}
                times = []
                for _ in range(20):
                    began = time.process_time()
                    session.run(None, given)
                    times.append(time.process_time() - began)
                told.append(f"{model.name} {1000 * statistics.median(times):.3g} ms of CPU at {rows}")
    return ", ".join(told)


if __name__ == "__main__":
    main()
