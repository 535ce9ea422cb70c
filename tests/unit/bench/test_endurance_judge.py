"""The judge of a million requests counts what was planted for it: a wrong answer, somebody else's, a lost connection."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
from tests.benchmarks.endurance_cases import BINARY, GRPC, INPUTS, JSON, Answers, inputs, weights
from tests.benchmarks.endurance_crowd import Crowd
from tests.benchmarks.endurance_judge import Judge, Scene
from tests.benchmarks.endurance_load import clients
from tests.benchmarks.grpc_load import frame
from tests.benchmarks.memory_slope import slope, warmed

from penstock_serving.rpc.schema import ModelInferRequest, ModelInferResponse

AT = 7
"""Which request meets what was planted."""
ENOUGH = 20


def answer_of(rows: np.ndarray, revision: int = 0) -> np.ndarray:
    return (rows.astype(np.int64) @ weights(revision)).astype(np.float32)


def wrong_value(rows: np.ndarray) -> np.ndarray:
    answer = answer_of(rows)
    answer[0, 3] += 1
    return answer


ANSWERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "right": answer_of,
    "a wrong value": wrong_value,
    "an answer of somebody else's": lambda rows: answer_of(-rows),
    "an answer with a row too few": lambda rows: answer_of(rows)[:0],
    "an answer of a revision that is not there yet": partial(answer_of, revision=1),
}


@cache
def expected() -> Answers:
    return Answers(2)


class RestServer(asyncio.Protocol):
    """Speaks as a gateway with a replica would; one request meets what is planted."""

    def __init__(self, plant: str, seen: list[int]) -> None:
        self._plant, self._seen, self._buffer = plant, seen, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        told = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:]) if found else {}
        if not found or len(rest) < int(told[b"content-length"]):
            return
        self._buffer = b""
        self._seen.append(1)
        plant = self._plant if len(self._seen) == AT else "right"
        length = int(told.get(b"inference-header-content-length", len(rest)))
        (asked,) = json.loads(rest[:length])["inputs"]
        binary = length < len(rest)
        data = np.frombuffer(rest[length:], np.float32) if binary else np.array(asked["data"], np.float32)
        self._answer(plant, data.reshape(asked["shape"]), binary=binary)

    def _answer(self, plant: str, rows: np.ndarray, *, binary: bool) -> None:
        transport = self._transport
        if plant == "a connection that closes without a word":
            transport.abort()
            return
        answer = ANSWERS.get(plant, answer_of)(rows)
        output = {"name": "y", "datatype": "FP32", "shape": list(answer.shape)}
        raw = answer.tobytes() if binary else b""
        document = output if binary else output | {"data": answer.ravel().tolist()}
        text = json.dumps({"model_name": "tiny", "outputs": [document]}).encode()
        length = f"Inference-Header-Content-Length: {len(text)}\r\n" if binary else ""
        status = "503 Service Unavailable" if plant == "a status that is none of success" else "200 OK"
        close = "Connection: close\r\n" if plant == "an end that is announced" else ""
        whole = f"HTTP/1.1 {status}\r\n{length}Content-Length: {len(text + raw)}\r\n{close}\r\n".encode() + text + raw
        if plant == "a connection that closes in the middle of an answer":
            transport.write(whole[:-5])
            transport.close()
            return
        transport.write(whole)
        if close:
            transport.close()


class RpcServer(asyncio.Protocol):
    """The same over HTTP/2, as far as the clients need it: no header is read, and none is compressed."""

    def __init__(self, plant: str, seen: list[int]) -> None:
        self._plant, self._seen, self._buffer = plant, seen, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(frame(4, 0, 0, b""))
        self._skip = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= self._skip + 9:
            at = self._skip
            length = int.from_bytes(self._buffer[at : at + 3], "big")
            if len(self._buffer) < at + 9 + length:
                return
            kind, payload = self._buffer[at + 3], self._buffer[at + 9 : at + 9 + length]
            stream = int.from_bytes(self._buffer[at + 5 : at + 9], "big")
            self._buffer, self._skip = self._buffer[at + 9 + length :], 0
            if kind == 0:
                self._seen.append(1)
                self._answer(self._plant if len(self._seen) == AT else "right", stream, payload[5:])

    def _answer(self, plant: str, stream: int, message: bytes) -> None:
        write = self._transport.write
        if plant == "a connection that closes without a word":
            self._transport.abort()
        elif plant == "a reset":
            write(frame(3, 0, stream, struct.pack(">I", 2)))
        elif plant == "an end that is announced":
            # Neither this call nor those after it were begun.
            write(frame(7, 0, 0, struct.pack(">II", stream - 2, 0)))
        elif plant == "a status that is none of success":
            write(frame(1, 5, stream, b"\x88\x40\x0bgrpc-status\x0214"))
        else:
            request = ModelInferRequest.FromString(message)
            (raw,), (asked,) = request.raw_input_contents, request.inputs
            answer = ANSWERS[plant](np.frombuffer(raw, np.float32).reshape(tuple(asked.shape)))
            output = {"name": "y", "datatype": "FP32", "shape": list(answer.shape)}
            told = ModelInferResponse(model_name="tiny", outputs=[output], raw_output_contents=[answer.tobytes()])
            body = told.SerializeToString()
            framed = frame(0, 0, stream, b"\0" + struct.pack(">I", len(body)) + body)
            write(frame(1, 4, stream, b"\x88") + framed + frame(1, 5, stream, b"\x40\x0bgrpc-status\x010"))


WRONG = [(plant, 1, "") for plant in ANSWERS if plant != "right"]
REST_PLANTS = [
    ("right", 0, ""),
    *WRONG,
    ("an end that is announced", 0, ""),
    ("a status that is none of success", 0, "status 503"),
    ("a connection that closes without a word", 0, "connection lost"),
    ("a connection that closes in the middle of an answer", 0, "connection lost"),
]
RPC_PLANTS = [
    ("right", 0, ""),
    *WRONG,
    ("an end that is announced", 0, ""),
    ("a status that is none of success", 0, "status other than 0"),
    ("a connection that closes without a word", 0, "connection lost"),
    ("a reset", 0, "reset with code 2"),
]
ROWS = [(kind, *row) for kind in (JSON, BINARY) for row in REST_PLANTS] + [(GRPC, *row) for row in RPC_PLANTS]


@pytest.mark.parametrize(("kind", "plant", "wrong", "failure"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS])
def test_what_is_planted_is_counted_and_nothing_else(kind: str, plant: str, wrong: int, failure: str) -> None:
    async def scenario() -> Crowd:
        seen: list[int] = []
        make = RpcServer if kind == GRPC else RestServer
        server = await asyncio.get_running_loop().create_server(lambda: make(plant, seen), "127.0.0.1", 0)
        # One connection of the kind in question alone.
        crowd = Crowd(expected(), {kind: 1}, clients(calls=1))
        address = server.sockets[0].getsockname()[:2]
        crowd.take(json.dumps({"gateways": [address], "revisions": [0], "happening": "planted"}).encode())
        async with asyncio.timeout(30):
            while crowd.judge.finished < ENOUGH:  # noqa: ASYNC110 -- nothing tells us but looking
                await asyncio.sleep(0.001)
            crowd.take(b'{"finish": true}')
            while crowd.clients:  # noqa: ASYNC110 -- as above
                await asyncio.sleep(0.001)
        server.close()
        return crowd

    judge = asyncio.run(scenario()).judge
    assert dict(judge.wrong) == ({kind: wrong} if wrong else {})
    assert dict(judge.failed) == ({f"{kind}: {failure}": 1} if failure else {})
    assert [each["during"] for each in judge.told] == ["planted"] * (wrong + bool(failure))
    assert judge.right[kind] >= ENOUGH - wrong - bool(failure)
    assert judge.moved == (kind == GRPC and plant == "an end that is announced")


def test_an_answer_of_a_revision_that_left_meanwhile_is_right_only_for_who_asked_before() -> None:
    judge = Judge(expected())
    rows = inputs()[1]
    text = json.dumps({"outputs": [{"shape": [len(rows), 10], "data": answer_of(rows).ravel().tolist()}]}).encode()
    both, fresh = (Scene(revisions=frozenset(each), happening="a rolling update") for each in ({0, 1}, {1}))
    judge.scene = fresh
    for began, wrong in ((both, 0), (fresh, 1)):
        judge.answer(JSON, 1, began, b"", text, now=0.0, took=0.0)
        assert judge.wrong.total() == wrong


def test_every_input_has_an_answer_of_its_own() -> None:
    answers = {answer_of(rows, revision).tobytes() for rows in inputs() for revision in range(4)}
    assert len(answers) == INPUTS * 4


def test_a_slope_is_told_with_its_error_and_a_warm_up_is_no_part_of_it() -> None:
    grown = [(1000.0 * n, 50.0 + (min(30, n)) + 0.002 * n) for n in range(100)]
    found = slope(*zip(*warmed(grown), strict=True))
    assert found is not None
    assert found.value == pytest.approx(2.0)
    assert found.error == pytest.approx(0.0, abs=1e-6)
    assert slope([1, 2, 3], [1, 2, 3]) is None
    noisy = [(x, mib + (0.5 if n % 2 else -0.5)) for n, (x, mib) in enumerate(grown[40:])]
    shaky = slope(*zip(*noisy, strict=True))
    assert shaky is not None
    assert abs(shaky.value - 2.0) < shaky.error
