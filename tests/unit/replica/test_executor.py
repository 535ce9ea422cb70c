"""Runs at once, and what becomes of requests whose batcher fails by a defect: they are told, and those that come after answered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping

import numpy as np
import pytest

from penstock.optimization.recipes import EngineName, EngineSettings
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock.serving.settings import BatchingSettings
from penstock_runtime.batching.ticket import Ticket
from penstock_runtime.engines import Array
from penstock_runtime.joining import prove
from penstock_serving.replica.call import Call
from penstock_serving.replica.codec.requests import InferRequest
from penstock_serving.replica.execution.executor import Executor
from penstock_serving.replica.execution.joint import BatchRun


class Doubling:
    """Takes a moment."""

    platform = "python"
    signature = Signature(
        inputs=(TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 2)),),
        outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, 2)),),
    )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        time.sleep(0.002)
        return {"y": inputs["x"] * 2}


class Meeting(Doubling):
    """Counts the threads that are in it at once; while it is asked to, a run waits for as many."""

    def __init__(self) -> None:
        self.present = self.most = 0
        self.wanted = 1
        self.changed = threading.Condition()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        with self.changed:
            self.present += 1
            self.most = max(self.most, self.present)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.most >= self.wanted, timeout=30)
        answer = super().run(inputs)
        with self.changed:
            self.present -= 1
        return answer


class Told:
    """An executor, and what it told of whom."""

    def __init__(self, engine: Doubling, runs: int = 1) -> None:
        self.ends: dict[Call, str] = {}
        self.twice: list[tuple[str, str]] = []
        """What who was told already was told again."""
        self.told = asyncio.Event()
        self.executor = Executor(
            engine,
            prove(engine, EngineSettings(name=EngineName.ONNX_RUNTIME), 8),
            BatchingSettings(max_batch_size=4),
            on_ran=self._ran,
            on_expired=lambda call: self._end(call, "expired"),
            on_shed=lambda call: self._end(call, "shed"),
            on_given_up=lambda call: self._end(call, "given up"),
            runs=runs,
        )

    def _ran(self, ran: BatchRun) -> None:
        for member, result in zip(ran.members, ran.results, strict=True):
            request = member.payload.request
            assert isinstance(result, dict)
            assert request is not None
            assert np.array_equal(result["y"], request.inputs["x"] * 2)
            self._end(member.payload, "answered")

    def _end(self, call: Call, end: str) -> None:
        if call in self.ends:
            self.twice.append((self.ends[call], end))
        self.ends[call] = end
        self.told.set()

    async def ask(self, requests: int) -> list[str]:
        calls = [Call(time.monotonic_ns()) for _ in range(requests)]
        for number, call in enumerate(calls):
            call.request = InferRequest({"x": np.full((1, 2), number, np.float32)}, 1, (), ())
            assert self.executor.submit(Ticket(call), time.monotonic()) is None
        async with asyncio.timeout(60):
            while not all(call in self.ends for call in calls):
                self.told.clear()
                await self.told.wait()
        return [self.ends[call] for call in calls]


@pytest.mark.parametrize("runs", [1, 2, 4])
def test_as_many_runs_are_under_way_as_may_be_and_each_request_gets_its_own_answer(runs: int) -> None:
    async def scenario() -> None:
        engine = Meeting()
        told = Told(engine, runs)
        engine.most, engine.wanted = 0, runs
        for _ in range(5):
            assert await told.ask(33) == ["answered"] * 33
        assert engine.most == runs
        assert told.twice == []
        assert told.executor.batcher.in_system == 0
        told.executor.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize("method", ["begin", "end", "wait_until"])
def test_a_defect_of_the_batcher_is_told_to_who_waits_and_those_that_come_after_are_answered(
    method: str, runs: int
) -> None:
    async def scenario() -> None:
        told = Told(Doubling(), runs)
        assert await told.ask(9) == ["answered"] * 9
        setattr(told.executor.batcher.gathering, method, _fail)
        ends = await told.ask(9)
        assert set(ends) <= {"answered", "given up"}
        assert "given up" in ends
        assert await told.ask(9) == ["answered"] * 9
        assert told.executor.batcher.in_system == 0
        told.executor.close()

    asyncio.run(scenario())


def _fail(*_: object) -> None:
    raise ZeroDivisionError
