"""A deployment under steady load whose revisions are judged one after another on real parts, and what its clients and its status saw."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

import numpy as np
from tests.benchmarks import parts
from tests.benchmarks.open_loop import Connections, http_request
from tests.benchmarks.rollout_models import WIDTH, ModelTraits, save_model
from tests.e2e.stack import Platform, deployment

from penstock.api.conditions import DeploymentCondition
from penstock.api.rollout import RolloutPhase

_BODIES: Final = 200
_LOOK_SECONDS: Final = 0.5
_LATE_SECONDS: Final = 1.5
"""A request may be answered by what had a share so long before or after, as the status has it."""
_REST_SECONDS: Final = 2.0
"""After a rollout, to see whether anybody is still harmed."""
ANALYSIS: Final = {
    "outputParity": "0.95", "shadowRatio": "1", "warmUpSeconds": 1, "beta": "0.2", "alpha": "0.01",
    "maxErrorIncrease": "0.1", "maxSlowIncrease": "0.5", "maxCpuIncrease": "3", "maxMemoryIncrease": "2",
}  # fmt: skip
ROLLOUT: Final = {"type": "Canary", "steps": [20, 50], "stepSeconds": 3, "deadlineSeconds": 600, "keepSeconds": 1}
"""Wide margins and short steps, so that two cores see many rollouts."""
ENDED: Final = (RolloutPhase.PROMOTED, RolloutPhase.ROLLED_BACK)


@dataclass(frozen=True)
class ClientAnswer:
    """What one request got."""

    at: float
    """When it was sent, epoch seconds."""
    done: float
    problem: str
    """Empty where it was answered well: `failed`, `wrong` or `shape`."""
    detail: str = ""


class SteadyLoad:
    """Requests at a rate to one model, in a thread, for as long as the context lasts.

    Args:
        urls: of the model, at each gateway; another is taken where one cannot be reached.
        per_second: requests.
    """

    def __init__(self, urls: list[str], per_second: float) -> None:
        self._urls, self._interval = urls, 1 / per_second
        self.answers: list[ClientAnswer] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()), daemon=True)
        self._rows = np.random.default_rng(0).uniform(0.5, 1.0, (_BODIES, WIDTH)).astype(np.float32)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(150)

    async def _ask(self) -> None:
        targets = [self._target(url) for url in self._urls]
        begun, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as tasks:
            while not self._over.is_set():
                tasks.create_task(self._one(targets, number % _BODIES))
                number += 1
                await asyncio.sleep(max(0.0, begun + number * self._interval - time.monotonic()))
        for connections, _ in targets:
            connections.close()

    def _target(self, url: str) -> tuple[Connections, list[bytes]]:
        parsed = urlsplit(url)
        assert parsed.hostname is not None
        assert parsed.port is not None
        path = f"{parsed.path}/infer"
        return Connections(parsed.hostname, parsed.port), [
            http_request(parsed.netloc, path, json.dumps(_document(row)).encode()) for row in self._rows
        ]

    async def _one(self, targets: list[tuple[Connections, list[bytes]]], number: int) -> None:
        at, status, body = time.time(), 0, b""
        turn = len(self.answers) % len(targets)
        for connections, requests in (*targets[turn:], *targets[:turn]):
            # One that took no connection did nothing with the request: a client of a Service goes to another then, too.
            with suppress(ConnectionRefusedError):
                try:
                    status, body = await connections.post(requests[number], 60.0)
                except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                    if isinstance(error, ConnectionRefusedError):
                        raise
                    body = repr(error).encode()
                break
        problem = _problem(status, body, self._rows[number])
        self.answers.append(
            ClientAnswer(at, time.time(), problem, f"{status} {body[:200].decode(errors='replace')}" if problem else "")
        )


def _document(row: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "data": row.tolist()}]}


def _problem(status: int, body: bytes, row: np.ndarray[Any, Any]) -> str:
    if status != 200:
        return "failed"
    output = json.loads(body)["outputs"][0]
    if output["shape"] != [1, WIDTH]:
        return "shape"
    return "" if np.allclose(output["data"], row, atol=1e-3) else "wrong"


@dataclass(frozen=True)
class StatusLook:
    """The rollout as the status had it."""

    at: float
    record: dict[str, Any]

    @property
    def weight(self) -> int:
        """Percent of the requests that the candidate got."""
        return int(self.record.get("weight", 0))


@dataclass
class RolloutStory:
    """One rollout, from the change of the spec."""

    began: float
    ended: float
    looks: list[StatusLook]
    answers: list[ClientAnswer]
    condition: dict[str, Any]
    """What Progressing said at the end."""
    active: str
    disturbed: list[str] = field(default_factory=list)

    @property
    def record(self) -> dict[str, Any]:
        """The last that the status had."""
        return self.looks[-1].record if self.looks else {}

    @property
    def end(self) -> str:
        """`Promoted`, `RolledBack`, or the phase in which it was given up."""
        return str(self.record.get("phase", "none"))

    def count(self, *problems: str) -> int:
        """Answers with one of these problems."""
        return sum(each.problem in problems for each in self.answers)

    @property
    def harmed(self) -> int:
        """Requests that were not answered as they should be."""
        return sum(bool(each.problem) for each in self.answers)

    def allowed(self) -> float:
        """Requests that were the candidate's by its share: as many may be harmed, give or take chance."""
        return sum(self._weight_near(each) for each in self.answers) / 100

    def _weight_near(self, answer: ClientAnswer) -> int:
        near = [
            look.weight for look in self.looks if answer.at - _LATE_SECONDS <= look.at <= answer.done + _LATE_SECONDS
        ]
        return max(near, default=0)

    def candidates_requests(self) -> int:
        """Requests of clients that the candidate is known to have had."""
        return max(
            (int(each.get("samples", 0)) for each in self.record.get("metrics", ()) if each["name"] == "errors"),
            default=0,
        )

    def seconds_harmed_after(self) -> float:
        """From its end until the last that was harmed was sent; 0 where nobody was after it."""
        return max((each.at - self.ended for each in self.answers if each.problem), default=0.0) if self.looks else 0.0

    def went_back(self) -> str:
        """Where its share fell though it was not rolled back; empty where it never did."""
        for look, following in zip(self.looks, self.looks[1:], strict=False):
            if following.weight < look.weight and following.record.get("phase") != RolloutPhase.ROLLED_BACK:
                return f"its share fell from {look.weight} to {following.weight} %"
        return ""

    def seconds_in(self) -> dict[str, float]:
        """By phase, as looked at."""
        found: dict[str, float] = {}
        for look, following in zip(self.looks, self.looks[1:], strict=False):
            phase = str(look.record.get("phase", ""))
            found[phase] = found.get(phase, 0.0) + following.at - look.at
        return {phase: round(seconds, 1) for phase, seconds in found.items()}


@dataclass
class Lane:
    """One deployment, with what is told to its rollouts."""

    platform: Platform
    name: str
    work: int = 0
    """Of each answer: see `ModelTraits`."""
    per_second: float = 40.0
    namespace: str = "default"
    analysis: dict[str, Any] = field(default_factory=dict)
    rollout: dict[str, Any] = field(default_factory=dict)
    _models: int = 0
    load: SteadyLoad | None = None

    def apply(self, traits: ModelTraits) -> None:
        """A model of its own for each spec: another revision, whatever it answers."""
        self._models += 1
        path = save_model(self.platform.folder / self.name / str(self._models) / "model.onnx", traits)
        rollout = ROLLOUT | self.rollout | {"analysis": ANALYSIS | self.analysis}
        manifest = deployment(self.namespace, self.name, path, rollout=rollout)
        self.platform.kubectl("apply", "-f", "-", manifest=manifest)

    def begin(self) -> SteadyLoad:
        """The first revision; its load, to be entered."""
        self.apply(ModelTraits(work=self.work))
        path = urlsplit(self.platform.until_ready(self.namespace, self.name, 300)["status"]["url"]).path
        gateways = (self.platform.gateway, *self.platform.others)
        self.load = SteadyLoad([f"{each.url}{path}" for each in gateways], self.per_second)
        return self.load

    def status(self) -> dict[str, Any]:
        """Of the deployment."""
        found: dict[str, Any] = self.platform.get(self.namespace, self.name).get("status", {})
        return found

    def judge(
        self, traits: ModelTraits, seconds: float, meanwhile: Callable[[StatusLook], str] | None = None
    ) -> RolloutStory:
        """Have a candidate judged, to its end or for so long.

        Args:
            traits: the candidate's.
            seconds: at most.
            meanwhile: is shown each look; says what it did, or nothing.
        """
        assert self.load is not None
        former = (self.status().get("rollout") or {}).get("candidate")
        first, began = len(self.load.answers), time.time()
        self.apply(traits)
        looks: list[StatusLook] = []
        disturbed: list[str] = []
        while time.time() < began + seconds:
            time.sleep(_LOOK_SECONDS)
            record = self.status().get("rollout") or {}
            if not record or record.get("candidate") == former:
                continue
            looks.append(
                StatusLook(time.time(), {key: record[key] for key in record if key not in {"evidence", "notes"}})
            )
            if said := meanwhile(looks[-1]) if meanwhile else "":
                disturbed.append(f"{looks[-1].at - began:.0f} s: {said}")
            if record["phase"] in ENDED:
                break
        ended = time.time()
        time.sleep(_REST_SECONDS)
        status = self.status()
        conditions = {each["type"]: each for each in status.get("conditions", [])}
        return RolloutStory(
            began, ended, looks, self.load.answers[first:], conditions.get(DeploymentCondition.PROGRESSING, {}),
            status.get("activeRevision", ""), disturbed,
        )  # fmt: skip

    def end(self) -> None:
        """Take it down."""
        self.platform.kubectl("delete", "infdep", self.name, "-n", self.namespace, "--timeout=120s", check=False)
        parts.until(
            f"{self.name} gone",
            lambda: not any(self.name in each for each in self.platform.serve_applications()),
            120,
            pause=1.0,
        )
