"""A real replica process, small ONNX models for it, and a raw HTTP client."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests import preloaded
from tests.preloaded import Forked

from penstock.serving.control import (
    COMMAND,
    EVENT,
    Drain,
    QueryStats,
    Ready,
    Reconfigure,
    ReplicaSettings,
    StartFailed,
    Stats,
)

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 60
TRUST = httpx.create_ssl_context()
"""Made once: each call of httpx without a client of its own would read all authorities, which takes as long as a slow model's run."""


def save_model(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    outputs: Mapping[str, tuple[int, Sequence[int | str]]],
    constants: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> Path:
    """Write a model made of the given nodes. Tensors are (element type, shape) by name."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, *what) for name, what in inputs.items()],
        [helper.make_tensor_value_info(name, *what) for name, what in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def linear_weights() -> np.ndarray[Any, Any]:
    """The weights of `save_linear`'s model, 64 by 10."""
    return np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)


def save_linear(path: Path) -> Path:
    """x[n, 64] times fixed weights: y[n, 10]."""
    return save_model(
        path,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, ["n", 64])},
        {"y": (TensorProto.FLOAT, ["n", 10])},
        {"w": linear_weights()},
    )


def save_slow(path: Path, size: int = 512) -> Path:
    """y = x after some hundreds of milliseconds of matrix products, so that requests meet in the queue."""
    big = np.full((size, size), 1 / size, dtype=np.float32)
    # A term that depends on x's shape keeps the products from being folded away when the model is loaded. One of its values would
    # make answers depend on each other.
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["lengths"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["lengths"], ["s"], keepdims=0),
        helper.make_node("Add", ["big", "s"], ["m0"]),
        *(helper.make_node("MatMul", [f"m{i}", "big"], [f"m{i + 1}"]) for i in range(20)),
        helper.make_node("ReduceSum", ["m20"], ["total"], keepdims=0),
        helper.make_node("Mul", ["total", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    return save_model(
        path,
        nodes,
        {"x": (TensorProto.FLOAT, ["n", 1])},
        {"y": (TensorProto.FLOAT, ["n", 1])},
        {"big": big, "zero": np.zeros((), np.float32)},
    )


class ReplicaProcess:
    """A replica's server process and its control pipe."""

    def __init__(self, environment: Mapping[str, str], *, forked: bool = False, **settings: Any) -> None:
        """Start it.

        Args:
            environment: beside ours.
            forked: from a process that has its imports; else by `python -m penstock_serving.replica`.
            settings: that differ from the usual ones.
        """
        commands, command = os.pipe()
        event, events = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 -- until `close`
        self.commands, self._events = os.fdopen(command, "wb"), os.fdopen(event, "rb")
        self.process = _start(environment, (commands, events, self._log.fileno()), forked=forked)
        os.close(commands)
        os.close(events)
        given = {"namespace": "default", "model": "tiny", "revision": "r1", "replica_id": "replica-1"} | settings
        self.write(ReplicaSettings(**given).model_dump_json())
        self.event = self.read()

    @property
    def address(self) -> str:
        assert isinstance(self.event, Ready), self.event
        return self.event.address

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def write(self, line: str) -> None:
        self.commands.write(line.encode() + b"\n")
        self.commands.flush()

    def send(self, command: Reconfigure | Drain | QueryStats) -> None:
        self.write(COMMAND.dump_json(command).decode())

    def read(self) -> Any:
        """The next event; None once the process has closed its side."""
        line = self._events.readline()
        return EVENT.validate_json(line) if line else None

    def stats(self) -> Any:
        self.send(QueryStats())
        event = self.read()
        assert isinstance(event, Stats)
        return event.stats

    def infer(self, document: dict[str, Any], path: str = "/v2/models/tiny/infer", **kwargs: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=document, timeout=_SECONDS, verify=TRUST, **kwargs)

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=_SECONDS, verify=TRUST, **kwargs)

    def connect(self) -> socket.socket:
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=_SECONDS)

    def close(self) -> str:
        """Close the control pipe and wait for the end. Returns the log."""
        if self._log.closed:
            return ""
        with contextlib.suppress(BrokenPipeError):
            self.commands.close()
        try:
            self.process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._events.close()
        with self._log as log:
            log.seek(0)
            return log.read().decode()


def _start(
    environment: Mapping[str, str], streams: tuple[int, int, int], *, forked: bool
) -> subprocess.Popen[bytes] | Forked:
    paths = os.pathsep.join(str(_ROOT / part) for part in ("platform", "services"))
    environment = os.environ | {"PYTHONPATH": paths} | dict(environment)
    if forked:
        return preloaded.start("penstock_serving.replica.process", [], environment, streams)
    command = [sys.executable, "-m", "penstock_serving.replica"]
    return subprocess.Popen(command, stdin=streams[0], stdout=streams[1], stderr=streams[2], env=environment)


@contextlib.contextmanager
def replica(
    storage: Path, environment: Mapping[str, str] | None = None, *, forked: bool = True, **settings: Any
) -> Iterator[ReplicaProcess]:
    """A replica that serves the model at a path, until the block ends."""
    started = ReplicaProcess(environment or {}, forked=forked, storage_uri=storage.as_uri(), **settings)
    try:
        assert isinstance(started.event, Ready), started.event
        yield started
    finally:
        log = started.close()
        print(log)


fresh_replica = partial(replica, forked=False)
"""One whose process imports all by itself, as a cluster's do, for what is measured."""


def failure(**settings: Any) -> StartFailed:
    """The event of a replica that cannot start."""
    started = ReplicaProcess({}, forked=True, **settings)
    log = started.close()
    assert isinstance(started.event, StartFailed), (started.event, log)
    assert started.process.returncode == 1
    return started.event


def document(rows: np.ndarray[Any, Any], name: str = "x", datatype: str = "FP32") -> dict[str, Any]:
    """An infer request with one input."""
    return {"inputs": [{"name": name, "shape": list(rows.shape), "datatype": datatype, "data": rows.tolist()}]}


def raw_request(body: bytes, path: str = "/v2/models/tiny/infer", headers: Sequence[str] = ()) -> bytes:
    """A POST as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: replica", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer: status, headers by lower-case name, body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError(f"closed after {data!r}")
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(rest) < int(headers["content-length"]):
        rest += connection.recv(65536)
    return int(first.split()[1]), headers, rest


def error_of(response: httpx.Response) -> str:
    """The protocol's error message."""
    (key,) = json.loads(response.content)
    assert key == "error"
    return str(response.json()["error"])
