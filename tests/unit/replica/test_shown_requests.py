"""What other replicas show a replica comes behind its clients' requests, is bounded, and is counted nowhere but where it should."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from penstock.errors import PenstockError
from penstock.protocol.refusals import Refusal
from penstock.routing.shadowing import Shown
from penstock.serving.control import ReplicaSettings
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock.serving.settings import BatchingSettings, CacheMode, CacheSettings
from penstock_runtime.engines import Array
from penstock_runtime.joining import Trial
from penstock_runtime.spans import SpanSink
from penstock_serving.replica.cache.cache import CacheResult
from penstock_serving.replica.call import Call
from penstock_serving.replica.codec.requests import InferRequest
from penstock_serving.replica.model.loading import LoadedModel
from penstock_serving.replica.service import InferenceService

SPEC = TensorSpec(name="x", datatype=DataType.FP32, shape=(-1,))


class Gated:
    """Runs only while its gate is open, and fails on negative numbers."""

    platform = "python"
    signature = Signature(inputs=(SPEC,), outputs=(SPEC,))

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.ran: list[float] = []

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.gate.wait()
        self.ran.append(float(inputs["x"][0]))
        if inputs["x"][0] < 0:
            raise ValueError("negative")
        return dict(inputs)


class Recorded(Call):
    """A call that notes what becomes of it."""

    __slots__ = ("done", "ended")

    def __init__(self, shown: Shown | None) -> None:
        super().__init__(1)
        self.shown = shown
        self.ended: list[str] = []
        self.done = asyncio.Event()

    def encode(self, outputs: Mapping[str, Array]) -> None:
        """Nothing is written."""

    def send(self) -> None:
        """It is answered."""
        self._end("answered")

    def refuse(self, error: PenstockError) -> None:
        """It is refused."""
        self._end(error.reason)

    def _end(self, how: str) -> None:
        self.ended.append(how)
        self.done.set()

    def caller(self) -> None:
        """Nobody's trace."""


@dataclass
class Rig:
    """A replica without a socket, each of whose runs has one request."""

    cache: CacheMode = CacheMode.OFF
    engine: Gated = field(default_factory=Gated)
    calls: list[Recorded] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = ReplicaSettings(
            namespace="ns", model="m", revision="r", replica_id="i", storage_uri="file:///",
            batching=BatchingSettings(max_batch_size=1), cache=CacheSettings(mode=self.cache),
        )  # fmt: skip
        model = LoadedModel(
            cast(Any, self.engine), "d", self.engine.signature, cast(Any, None), Trial(None, "one each")
        )
        self.service = InferenceService(settings, model, SpanSink(None, None))

    def ask(self, number: float, shown: Shown | None = None) -> Recorded:
        call = Recorded(shown)
        self.calls.append(call)
        self.service.infer(call, InferRequest({"x": np.full(1, number, np.float32)}, 1, (), ()))
        return call

    async def finish(self) -> None:
        """Let all run, and wait for the ends."""
        self.engine.gate.set()
        async with asyncio.timeout(60):
            for call in self.calls:
                await call.done.wait()
        self.service.executor.close()


def test_what_is_shown_runs_behind_all_that_clients_ask() -> None:
    async def scenario() -> list[float]:
        rig = Rig()
        rig.ask(0)
        await asyncio.sleep(0)
        for number in (1, 2):
            rig.ask(number, Shown.SAMPLED)
            rig.ask(10 + number)
        await rig.finish()
        assert all(call.ended == ["answered"] for call in rig.calls)
        return rig.engine.ran

    assert asyncio.run(scenario()) == [0, 11, 12, 1, 2]


def test_no_more_than_some_are_shown_at_once_and_clients_find_room() -> None:
    async def scenario() -> None:
        rig = Rig()
        shown = [rig.ask(number, Shown.SAMPLED) for number in range(20)]
        clients = [rig.ask(100 + number) for number in range(20)]
        assert [call.ended for call in shown] == [[]] * 8 + [[Refusal.QUEUE_FULL]] * 12
        await rig.finish()
        assert all(call.ended == ["answered"] for call in (*shown[:8], *clients))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("shown", "requests", "outcomes", "beside"),
    [
        pytest.param(None, 3, (2, 1), None, id="a client's"),
        pytest.param(Shown.SAMPLED, 0, (0, 0), (2, 1), id="samples, apart from clients' requests"),
        pytest.param(Shown.REPLAYED, 0, (0, 0), None, id="what was shown before, by its times alone"),
        pytest.param(Shown.ASKED, 0, (0, 0), None, id="what a replica asks itself, nowhere"),
    ],
)
def test_where_requests_are_counted(
    shown: Shown | None, requests: int, outcomes: tuple[int, int], beside: tuple[int, int] | None
) -> None:
    async def scenario() -> None:
        rig = Rig()
        for number in (1, 2, -1):
            rig.ask(number, shown)
        waiting = rig.service.stats()
        assert (rig.service.in_flight > 0) is (shown is None)
        await rig.finish()
        told, stats = rig.service.outcomes(), rig.service.stats()
        assert (told.answered, told.failed) == outcomes
        assert (None if told.shown is None else (told.shown.answered, told.shown.failed)) == beside
        assert rig.service.metrics.requests.total() == requests
        assert sum(rig.service.metrics.request_seconds.counts) == requests
        assert (waiting.arrival_rate > 0, stats.arrival_rate > 0) == ((shown is None),) * 2
        assert rig.service.answered.is_set() is (shown is None)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("shown", "late"), [(None, (2, 0)), (Shown.SAMPLED, (0, 2)), (Shown.REPLAYED, (0, 2)), (Shown.ASKED, (0, 0))]
)
def test_what_waits_is_late_where_it_is_counted(shown: Shown | None, late: tuple[int, int]) -> None:
    async def scenario() -> None:
        rig = Rig()
        for number in (1, 2):
            rig.ask(number, shown)
        told = rig.service.outcomes()
        assert (told.late, told.shown.late if told.shown is not None else 0) == late
        await rig.finish()

    asyncio.run(scenario())


def test_times_are_told_of_what_was_alone_in_the_replica() -> None:
    async def alone(*beside: Shown | None, later: bool = False) -> tuple[int, float]:
        rig = Rig()
        if not later:
            for shown in beside:
                rig.ask(1, shown)
        rig.ask(2, Shown.SAMPLED)
        if later:
            for shown in beside:
                rig.ask(1, shown)
        await rig.finish()
        told = rig.service.outcomes().shown
        assert told is not None
        return sum(told.seconds.values()), told.cpu_seconds

    async def scenario() -> None:
        count, cpu_seconds = await alone()
        assert count == 1
        assert cpu_seconds > 0
        for beside in (None, Shown.ASKED):
            assert await alone(beside) == (0, 0.0), "something was there before"
            assert await alone(beside, later=True) == (0, 0.0), "something came meanwhile"

    asyncio.run(scenario())


def test_the_cache_neither_answers_what_is_shown_nor_keeps_it() -> None:
    async def scenario() -> None:
        rig = Rig(CacheMode.EXACT)
        rig.engine.gate.set()
        client = rig.ask(1)
        await client.done.wait()
        for number in (1, 2):
            await rig.ask(number, Shown.SAMPLED).done.wait()
        again = [rig.ask(1), rig.ask(2)]
        await rig.finish()
        assert [call.cache for call in again] == [CacheResult.HIT, CacheResult.MISS]
        assert rig.engine.ran == [1, 1, 2, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize("number", [1, -1])
def test_no_trace_is_kept_of_what_is_shown(number: float) -> None:
    async def scenario() -> None:
        rig = Rig()
        call = rig.ask(number, Shown.REPLAYED)
        call.sampled = True
        await rig.finish()
        assert (call.kept, call.span) == ("", None)

    asyncio.run(scenario())


def test_a_sample_whose_sender_left_is_not_run() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.ask(0)
        await asyncio.sleep(0)
        for _ in range(20):
            gone = rig.ask(1, Shown.SAMPLED)
            rig.service.cancel(gone)
            rig.calls.remove(gone)
            assert not gone.ended
        await rig.finish()
        assert rig.engine.ran == [0]

    asyncio.run(scenario())
