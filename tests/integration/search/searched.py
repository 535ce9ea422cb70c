"""One real search of a small model, killed on its way, for several tests to look at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.integration.measurement.small_models import images

from penstock.api.optimization import OptimizationProfileSpec
from penstock.optimization.progress import RESULT_FILE, OptimizationRequest, RunIdentity, RunResult
from penstock.optimization.statements import Statement
from penstock.optimization.variants import SourceRequest
from penstock_runtime.signing import make_keys, public_key, verify_statement

DEADLINE = 400.0
SPEC = OptimizationProfileSpec.model_validate(
    {
        "steps": {"quantize": {"methods": ["Static", "Dynamic"], "calibrationSamples": 32}},
        "engines": ["ONNXRuntime"],
        "workload": {"scenario": "SingleStream", "batchSizes": [1], "maxBatchSize": 4},
        "constraints": {"accuracy": {"metric": "Cosine", "minRatio": "0.9"}, "minSpeedup": "1"},
        "search": {"finalists": 1, "budgetMinutes": 5},
    }
)


def wide_model(width: int = 1024) -> onnx.ModelProto:
    """Two wide layers of random weights, which int8 runs much faster than fp32."""
    generator = np.random.default_rng(0)
    shapes = {"w1": (64, width), "w2": (width, width), "w3": (width, 10)}
    weights = [
        numpy_helper.from_array((generator.standard_normal(s) / np.sqrt(s[0])).astype(np.float32), name)
        for name, s in shapes.items()
    ]
    nodes = [
        helper.make_node("Flatten", ["image"], ["x0"]),
        helper.make_node("MatMul", ["x0", "w1"], ["x1"]),
        helper.make_node("Relu", ["x1"], ["x2"]),
        helper.make_node("MatMul", ["x2", "w2"], ["x3"]),
        helper.make_node("Relu", ["x3"], ["x4"]),
        helper.make_node("MatMul", ["x4", "w3"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "wide", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def request_in(root: Path) -> OptimizationRequest:
    onnx.save(wide_model(), str(root / "model.onnx"))
    make_keys(root / "key.pem")
    return OptimizationRequest(
        model=SourceRequest(path=str(root / "model.onnx")),
        name="small",
        profile="OptimizationProfile/small-test",
        spec=SPEC,
        data_uri=str(images(root / "all.npz", 400)),
        store=str(root / "store"),
        run_folder=str(root / "run"),
        identity=RunIdentity(namespace="default", run="a-uid", job="small-1"),
        workspace=str(root / "workspace"),
        signing_key=str(root / "key.pem"),
        command="penstock optimize model.onnx",
    )


def statement_in(file: Path, request: OptimizationRequest) -> Statement:
    """What a file of a run's folder says, signed by the request's key."""
    return verify_statement(file.read_bytes(), [public_key(Path(request.signing_key))])[0]


def start(request: OptimizationRequest) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PENSTOCK_OPTIMIZATION_REQUEST": request.model_dump_json(), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "penstock_optimizer"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )


def kept(request: OptimizationRequest) -> dict[str, bytes]:
    """Files of the ledger, by name."""
    return {path.name: path.read_bytes() for path in Path(request.workspace).glob("searches/*/ledger/*.json")}


def end_when(process: subprocess.Popen[bytes], request: OptimizationRequest, trials: int, number: int) -> None:
    """Send a signal once so many trials are kept, and wait for the end."""
    deadline = time.monotonic() + DEADLINE
    while len(kept(request)) < trials and process.poll() is None:
        assert time.monotonic() < deadline, "the search keeps no trials"
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=DEADLINE)


def children_of(request: OptimizationRequest) -> list[str]:
    """Command lines of processes that still work in the workspace."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                environment = (folder / "environ").read_bytes()
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if request.workspace.encode() in environment and b"penstock_optimizer" in command:
                found.append(command.replace(b"\0", b" ").decode())
    return found


@dataclass
class Searched:
    """What happened."""

    request: OptimizationRequest
    before_kills: list[dict[str, bytes]] = field(default_factory=list)
    """The ledger at each kill."""
    left: list[str] = field(default_factory=list)
    """Children that outlived a kill."""
    terminated_status: int | None = None
    status: int | None = None
    stderr: str = ""

    @property
    def result(self) -> RunResult:
        result = statement_in(Path(self.request.run_folder or "") / RESULT_FILE, self.request).result
        assert result is not None
        return result


def search_with_kills(root: Path, kills: tuple[int, ...], terminated: int) -> Searched:
    """Run a search to its end, killed after so many trials each time, and once asked to end."""
    searched = Searched(request_in(root))
    for trials in kills:
        end_when(start(searched.request), searched.request, trials, signal.SIGKILL)
        searched.before_kills.append(kept(searched.request))
        deadline = time.monotonic() + 10
        while children_of(searched.request) and time.monotonic() < deadline:
            time.sleep(0.05)
        searched.left += children_of(searched.request)
    # Once it has kept a trial of its own: by then it hears the signal, which ends a process that only just begins.
    wanted = max(terminated, len(kept(searched.request)) + 1)
    process = start(searched.request)
    end_when(process, searched.request, wanted, signal.SIGTERM)
    searched.terminated_status = process.returncode
    searched.before_kills.append(kept(searched.request))
    process = start(searched.request)
    _, stderr = process.communicate(timeout=DEADLINE)
    searched.status, searched.stderr = process.returncode, stderr.decode()
    return searched
