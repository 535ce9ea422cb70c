"""What a batch gives its members: each its own answer, whatever the engine makes of them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest
from tests.telling import assert_tells

from penstock.errors import Invalid
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_runtime.batching.batcher import BatchStep
from penstock_runtime.batching.ticket import Ticket
from penstock_runtime.engines import Array
from penstock_runtime.joining import prove
from penstock_serving.replica.call import Call
from penstock_serving.replica.codec.requests import InferRequest
from penstock_serving.replica.execution.joint import BatchRun, JointRuns

SETTINGS = EngineSettings(name=EngineName.ONNX_RUNTIME)


class Turning:
    """Doubles its rows, which the trial proves; then it turns."""

    platform = "python"
    signature = Signature(
        inputs=(TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 2)),),
        outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, 2)),),
    )

    def __init__(self) -> None:
        self.way = ""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        x = inputs["x"]
        if len(x) == 1:
            return {"y": x * 2}
        if self.way == "refuses":
            raise ValueError("too many")
        ways: dict[str, dict[str, Array]] = {
            "adds up": {"y": np.cumsum(x * 2, axis=0)},
            "loses a row": {"y": x[1:] * 2},
            "gives one number": {"y": np.float32(1) * np.ones(())},
            "names none": {},
            "gives no array": {"y": cast(Array, None)},
        }
        return ways.get(self.way, {"y": x * 2})


def ticket(value: float, rows: int = 1) -> Ticket[Call]:
    call = Call(0)
    call.request = InferRequest({"x": np.full((rows, 2), value, np.float32)}, rows, (), ())
    return Ticket(call, rows)


def ran(runs: JointRuns, *values: float) -> BatchRun:
    members = tuple(map(ticket, values))
    return runs.run(BatchStep(members, len(members)))


def answers(found: BatchRun) -> list[float]:
    assert not any(isinstance(each, Invalid) for each in found.results)
    return [float(cast(dict[str, Any], each)["y"][0, 0]) for each in found.results]


WAYS = {
    "adds up": "answer 3 own",
    "loses a row": "'y' shape [2, 2] 3 rows",
    "gives one number": "'y' shape [] 3 rows",
    "names none": "'y' missing 3 rows",
    "gives no array": "3 rows could not be parted",
    "refuses": "3 rows failed alone too many",
}


@pytest.mark.parametrize(("way", "said"), WAYS.items(), ids=WAYS)
def test_whoever_turns_after_the_trial_still_gives_each_its_own_and_joins_no_more(way: str, said: str) -> None:
    engine = Turning()
    trial = prove(engine, SETTINGS, 8)
    assert trial.joining is not None
    runs = JointRuns(engine, trial)
    good = ran(runs, 1, 2, 3)
    assert (answers(good), good.apart) == ([2, 4, 6], None)
    engine.way = way
    found = ran(runs, 1, 2, 3)
    assert answers(found) == [2, 4, 6]
    assert found.apart is not None
    assert_tells(found.apart, said)


def test_a_coupling_that_shows_late_is_found_by_the_few_runs_that_are_compared() -> None:
    engine = Turning()
    runs = JointRuns(engine, prove(engine, SETTINGS, 8))
    for _ in range(20):
        assert ran(runs, 1, 2, 3).apart is None
    engine.way = "adds up"
    found = [ran(runs, 1, 2, 3) for _ in range(600)]
    assert any(each.apart for each in found)


def test_one_that_the_model_refuses_alone_is_no_reason_to_join_no_more() -> None:
    class Picky(Turning):
        def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
            if (inputs["x"] == 99).any():
                raise ValueError("no 99")
            return super().run(inputs)

    engine = Picky()
    found = ran(JointRuns(engine, prove(engine, SETTINGS, 8)), 1, 99, 3)
    assert found.apart is None
    assert [isinstance(each, Invalid) for each in found.results] == [False, True, False]
