"""The file at a model's address is replaced, and more replicas start: answers are one model's, and who is late says why."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from tests.integration.gateway_parts import Gateway, gateway, token_of, until
from tests.integration.replica_process import ReplicaProcess, document, failure, replica, save_model

from penstock.api.conditions import Reason
from penstock.serving.control import Ready

ASKED = json.dumps(document(np.ones((1, 1), np.float32))).encode()


def save_times(path: Path, factor: float) -> Path:
    """y = x times a factor, put in place as a whole."""
    fresh = save_model(
        path.with_suffix(".new"),
        [helper.make_node("Mul", ["x", "f"], ["y"])],
        {"x": (TensorProto.FLOAT, ["n", 1])},
        {"y": (TensorProto.FLOAT, ["n", 1])},
        {"f": np.array(factor, np.float32)},
    )
    return fresh.replace(path)


def digest_of(started: ReplicaProcess) -> str:
    assert isinstance(started.event, Ready)
    return started.event.digest


async def answers(through: Gateway) -> set[float]:
    async def one() -> float:
        status, answer, _ = await through.infer("/v2/models/tiny/infer", ASKED)
        assert status == 200, answer
        return float(answer["outputs"][0]["data"][0])

    return set(await asyncio.gather(*(one() for _ in range(40))))


async def replaced_meanwhile(folder: Path) -> list[set[float]]:
    """What is answered with two models behind one gateway: as they came, and as the operator then names one and the other."""
    async with gateway() as through:
        settings = {"gateways": (through.control,), "registration_token": token_of("default/tiny")}

        async def known(count: int) -> bool:
            routes = await through.routes()
            return len(routes.get("default/tiny", {"replicas": ()})["replicas"]) == count

        model = save_times(folder / "model.onnx", 1)
        with replica(model, replica_id="a", **settings) as first:
            await until(lambda: known(1))
            save_times(model, 10)
            with replica(model, replica_id="b", **settings) as second:
                await until(lambda: known(2))
                seen = [await answers(through)]
                for each in (first, second):
                    await through.declare("default/tiny", revisions={"r1": 100}, digests={"r1": digest_of(each)})
                    seen.append(await answers(through))
                return seen


def test_replicas_that_start_with_another_model_answer_nothing(tmp_path: Path) -> None:
    assert asyncio.run(replaced_meanwhile(tmp_path)) == [{1}, {1}, {10}]


def test_a_replica_that_is_told_its_revisions_model_does_not_start_with_another(tmp_path: Path) -> None:
    model = save_times(tmp_path / "model.onnx", 1)
    with replica(model) as first:
        digest = digest_of(first)
    with replica(model, revision_digest=digest):
        pass
    save_times(model, 10)
    late = failure(storage_uri=model.as_uri(), revision_digest=digest)
    assert late.reason == Reason.MODEL_CHANGED
    assert digest in late.message
    assert late.digest is not None
    with replica(model, revision_digest=late.digest):
        pass
