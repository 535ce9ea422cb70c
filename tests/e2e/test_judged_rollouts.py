"""New revisions judged on live traffic: a real API server, Ray, gateway, operator and replicas, and clients who ask all the while."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.benchmarks import parts
from tests.benchmarks.open_loop import Answer, Connections, http_request, send_at
from tests.e2e.stack import Platform, deployment

from penstock.api.rollout import RolloutPhase

pytestmark = [pytest.mark.apiserver, pytest.mark.ray, pytest.mark.timeout(720)]

PER_SECOND = 60
ROWS = 200
STABLE = 1.0
ENDED = {RolloutPhase.PROMOTED, RolloutPhase.ROLLED_BACK}


def scaled(path: Path, factor: float, refuses_above: float = 1e9) -> Path:
    """A model whose answer is its input times a factor. Requests whose first number is above a bound make it fail."""
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["heads"], axis=1),
        helper.make_node("Greater", ["heads", "bound"], ["above"]),
        helper.make_node("Cast", ["above"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["one", "index"], ["ones"], axis=0),
        helper.make_node("Mul", ["x", "factor"], ["product"]),
        helper.make_node("Mul", ["product", "ones"], ["y"]),
    ]
    constants = {
        "first": np.array([0], np.int64),
        "bound": np.array([refuses_above], np.float32),
        "one": np.array([1.0], np.float32),
        "factor": np.array([factor], np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


@dataclass
class Clients:
    """A steady load, and by which factor each answer was its request."""

    url: str
    answers: list[Answer] = field(default_factory=list)

    def ask(self, seconds: float) -> None:
        """Send requests for so long."""
        parsed = urlsplit(self.url)
        rows = np.random.default_rng(len(self.answers)).uniform(0.5, 1.0, (ROWS, 1, 4)).astype(np.float32)
        requests = [
            http_request(parsed.netloc, f"{parsed.path}/infer", json.dumps(document(row)).encode()) for row in rows
        ]
        times = [number / PER_SECOND for number in range(int(seconds * PER_SECOND))]

        async def run() -> None:
            assert parsed.hostname is not None
            assert parsed.port is not None
            connections = Connections(parsed.hostname, parsed.port)
            try:
                self.answers += (await send_at(connections, requests, times, check=first_number)).answers
            finally:
                connections.close()

        asyncio.run(run())

    def failed(self) -> list[Answer]:
        return [each for each in self.answers if each.status != 200]

    def negative(self) -> int:
        """Answers of a model that turns its inputs' sign."""
        return sum(each.status == 200 and float(each.detail) < 0 for each in self.answers)


def document(row: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row.ravel().tolist()}]}


def first_number(body: bytes) -> str:
    return str(json.loads(body)["outputs"][0]["data"][0])


def judged(namespace: str, name: str, model: Path, parity: str) -> dict[str, Any]:
    """A deployment whose rollouts are judged as soon as that can be."""
    analysis = {
        "outputParity": parity, "shadowRatio": "1", "warmUpSeconds": 1, "beta": "0.2", "alpha": "0.01",
        "maxErrorIncrease": "0.1", "maxSlowIncrease": "0.5", "maxCpuIncrease": "3", "maxMemoryIncrease": "2",
    }  # fmt: skip
    rollout = {
        "type": "Canary", "steps": [20, 50], "stepSeconds": 3, "deadlineSeconds": 500, "keepSeconds": 1,
        "analysis": analysis,
    }  # fmt: skip
    return deployment(namespace, name, model, rollout=rollout)


@dataclass(frozen=True)
class Candidate:
    """A second model, and what becomes of it."""

    end: RolloutPhase
    factor: float = STABLE
    refuses_above: float = 1e9
    parity: str = "0.9"


CASES = {
    "one that is as good takes over": Candidate(RolloutPhase.PROMOTED),
    "one that answers otherwise is turned back": Candidate(RolloutPhase.ROLLED_BACK, factor=-STABLE),
    "one that fails for some is turned back": Candidate(RolloutPhase.ROLLED_BACK, refuses_above=0.9, parity="0"),
}


@dataclass(frozen=True)
class Course:
    """How a rollout went."""

    former: str
    """The revision that served before."""
    active: str
    """The one that serves after."""
    told: dict[str, Any]
    """What the status says of it at its end, without the evidence."""
    clients: Clients


@pytest.fixture(scope="module")
def courses(penstock: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Course]]]:
    """Each case's rollout: all at once, since each waits for evidence most of the time."""
    with penstock.tenant() as namespace, ThreadPoolExecutor(len(CASES)) as pool:
        yield {
            said: pool.submit(roll_out, penstock, namespace, f"judged-{number}", case, tmp_path_factory.mktemp("m"))
            for number, (said, case) in enumerate(CASES.items())
        }


def roll_out(penstock: Platform, namespace: str, name: str, case: Candidate, folder: Path) -> Course:
    """Serve a model, and then a second one, to clients who ask until it is judged and for a second more."""
    first = scaled(folder / "1" / "model.onnx", STABLE)
    second = scaled(folder / "2" / "model.onnx", case.factor, case.refuses_above)
    penstock.kubectl("apply", "-f", "-", manifest=judged(namespace, name, first, case.parity))
    clients = Clients(penstock.until_ready(namespace, name)["status"]["url"])
    former = penstock.get(namespace, name)["status"]["activeRevision"]
    seen: list[dict[str, Any]] = []

    def rollout() -> dict[str, Any]:
        seen.append(penstock.get(namespace, name)["status"].get("rollout") or {})
        return seen[-1]

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(clients.ask, 1.0)
        penstock.kubectl("apply", "-f", "-", manifest=judged(namespace, name, second, case.parity))
        parts.until("the rollout's end", lambda: _keep_asking(pool, clients, rollout), 550, pause=0)
        asking.result()
    clients.ask(1.0)
    told = {key: value for key, value in seen[-1].items() if key != "evidence"}
    return Course(former, penstock.get(namespace, name)["status"]["activeRevision"], told, clients)


def _keep_asking(pool: ThreadPoolExecutor, clients: Clients, rollout: Any) -> bool:
    pool.submit(clients.ask, 2.0).result()
    return rollout().get("phase") in ENDED


@pytest.mark.parametrize("said", CASES)
def test_a_new_revision_is_judged_on_live_traffic(courses: dict[str, Future[Course]], said: str) -> None:
    case, course = CASES[said], courses[said].result()
    told, clients = course.told, course.clients
    assert told["phase"] == case.end, told
    if case.end is RolloutPhase.PROMOTED:
        assert course.active != course.former
        assert clients.failed() == []
    else:
        assert course.active == course.former, told
        # Only those that were given to it can have been harmed, and nobody once it was turned back.
        assert len(clients.failed()) < 0.2 * len(clients.answers), told
        assert all(each.status == 200 for each in clients.answers[-PER_SECOND:])
    assert clients.negative() == 0, "no client gets an answer of one whose answers are not proved to agree"
