"""`penstock bench` against a real replica, and against servers that stall, refuse, close and lie."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.integration.replica_process import ReplicaProcess, replica, save_linear
from typer.testing import CliRunner

from penstock.errors import Invalid, Unavailable
from penstock_cli.bench.arrivals import ArrivalProcess
from penstock_cli.bench.connection import LoadTarget
from penstock_cli.bench.inputs import InputOptions
from penstock_cli.bench.load import DrivenLoad, LoadSettings, keep_schedule, run_closed_loop, run_open_loop
from penstock_cli.bench.run import BenchOptions, run_bench
from penstock_cli.main import app

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + _ANSWER
_CLOSING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
_REFUSED = b'HTTP/1.1 429 Too Many Requests\r\nContent-Length: 17\r\n\r\n{"error": "full"}'
_REQUEST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextmanager
def serving(handler: Handler) -> Iterator[LoadTarget]:
    """A server on loopback, on a loop of its own."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    found: list[int] = []

    async def start() -> None:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        found.append(server.sockets[0].getsockname()[1])
        ready.set()

    def run() -> None:
        loop.create_task(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield LoadTarget("127.0.0.1", found[0])
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


async def read_request(reader: asyncio.StreamReader) -> bool:
    try:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    return True


def answering(*answers: bytes, close: bool = False) -> Handler:
    """Answers in turn, over each connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while await read_request(reader):
            writer.write(answers[number % len(answers)])
            number += 1
            if close:
                break
        writer.close()

    return handle


def settings(server: LoadTarget, **more: Any) -> LoadSettings:
    given: dict[str, Any] = {"seconds": 0.7, "warmup": 0.0, "timeout": 10.0, "most_connections": 64} | more
    return LoadSettings(server, [_REQUEST], **given)


def closed(server: LoadTarget, connections: int = 2, **more: Any) -> DrivenLoad:
    return uvloop.run(run_closed_loop(settings(server, **more), connections, lambda _answered, _failed: None))


def opened(server: LoadTarget, times: list[float], **more: Any) -> DrivenLoad:
    return uvloop.run(run_open_loop(settings(server, **more), times, 100.0, lambda _answered, _failed: None))


def test_an_open_loop_sees_a_stall_that_a_closed_loop_hides() -> None:
    stalled = threading.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_request(reader):
            if not stalled.is_set():
                stalled.set()
                time.sleep(0.5)  # noqa: ASYNC251 (the whole server stands still)
            writer.write(_ANSWER)
        writer.close()

    times = [n / 100 for n in range(70)]
    with serving(handle) as server:
        seen = opened(server, times).figures
        stalled.clear()
        hidden = closed(server, 1).figures
    assert seen.latency_milliseconds is not None
    assert hidden.latency_milliseconds is not None
    # Of seventy requests fifty were due while it stood still; a closed loop sent one of its many.
    assert seen.latency_milliseconds.p90 > 100
    # However slow the machine, it sent more than two.
    assert hidden.latency_milliseconds.p50 < seen.latency_milliseconds.p90
    assert seen.requests == 70


def test_each_failure_is_counted_by_its_status_with_what_the_server_said() -> None:
    with serving(answering(_ANSWER, _REFUSED)) as server:
        result = opened(server, [n / 100 for n in range(40)], most_connections=1)
    assert result.figures.statuses == {200: 20, 429: 20}
    assert "full" in result.excerpts[429]


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(answering(_CLOSING), id="with Connection: close"),
        pytest.param(answering(_INTERIM), id="not at all, but sends words before each answer"),
        pytest.param(answering(_ANSWER, close=True), id="without a word, after an answer"),
    ],
)
def test_a_server_that_ends_connections_loses_no_request(handler: Handler) -> None:
    with serving(handler) as server:
        result = opened(server, [n / 100 for n in range(40)])
    assert result.figures.statuses == {200: 40}


def test_a_connection_that_breaks_at_its_first_request_is_a_failure() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.close()

    with serving(handle) as server:
        result = opened(server, [0.0, 0.05])
    assert result.figures.statuses == {0: 2}
    assert "connection lost" in result.excerpts[0]


def test_a_request_without_an_answer_fails_at_its_time_limit() -> None:
    async def handle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(30)

    with serving(handle) as server:
        result = opened(server, [0.0, 0.1], timeout=0.3)
    assert result.figures.statuses == {0: 2}


def test_a_server_that_stops_answering_fails_a_closed_loop() -> None:
    async def handle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(30)

    with serving(handle) as server:
        result = closed(server, 3, timeout=0.3, seconds=0.1)
    assert result.figures.statuses == {0: 3}


def test_answers_are_read_while_the_client_is_behind_its_schedule() -> None:
    async def run() -> tuple[list[float], int]:
        read: list[None] = []
        seen = 0

        def send(_due: float) -> None:
            nonlocal seen
            seen = len(read)

        asyncio.get_running_loop().call_soon(read.append, None)
        return await keep_schedule(send, time.monotonic() - 10, [0.0] * 20), seen

    behind, seen = asyncio.run(run())
    assert seen == 1
    assert len(behind) == 20
    assert min(behind) >= 10


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell has what it starts in the background ignore interrupts, and so the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_shows_what_was_measured_before() -> None:
    connections = itertools.count(1)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # That of the probe, then one for each load: with the fifth, three loads were measured.
        number = next(connections)
        while await read_request(reader):
            writer.write(_ANSWER)
            if number == 5:
                number = 0
                os.kill(os.getpid(), signal.SIGINT)
        writer.close()

    with serving(handle) as server:
        options = _options(f"http://127.0.0.1:{server.port}/v2/models/m")
        document = run_bench(replace(options, connections=(1,) * 1000, seconds=0.05, body=b"{}"))
    assert document.interrupted
    assert 1 <= len(document.loads) < 1000
    assert document.loads[0].statuses.keys() == {200}


@pytest.mark.parametrize(("answered", "status"), [(1, 1), (1_000_000, 0)], ids=["all but the first fail", "none fails"])
def test_a_load_of_which_every_request_failed_ends_with_1(answered: int, status: int, tmp_path: Path) -> None:
    left = [answered]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_request(reader):
            left[0] -= 1
            writer.write(_ANSWER if left[0] >= 0 else _REFUSED)
        writer.close()

    body = tmp_path / "body.json"
    body.write_text("{}")
    with serving(handle) as server:
        url = f"http://127.0.0.1:{server.port}/v2/models/m"
        arguments = ["bench", url, "--body", str(body), "--connections", "1", "--seconds", "0.2", "--warmup", "0"]
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == status, result.output
    assert ("requests failed" in " ".join(result.output.split())) == bool(status)


def test_rows_of_a_request_that_is_the_users_own_are_refused(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text("{}")
    result = CliRunner().invoke(app, ["bench", "http://127.0.0.1:9/v2/models/m", "--body", str(body), "--rows", "8"])
    assert isinstance(result.exception, Invalid)
    assert "--rows" in result.exception.message


def test_what_is_due_while_all_connections_are_busy_waits_and_counts() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_request(reader):
            await asyncio.sleep(0.1)
            writer.write(_ANSWER)
        writer.close()

    with serving(handle) as server:
        figures = opened(server, [0.0, 0.001, 0.002, 0.003], most_connections=1).figures
    assert figures.statuses == {200: 4}
    assert figures.most_in_flight == 1
    assert figures.latency_milliseconds is not None
    assert figures.latency_milliseconds.most > 350


def test_what_is_no_http_is_a_failure() -> None:
    with serving(answering(b"hello\r\n\r\n", close=True)) as server:
        assert opened(server, [0.0]).figures.statuses == {0: 1}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaProcess]:
    with replica(save_linear(tmp_path_factory.mktemp("model") / "model.onnx")) as started:
        yield started


@pytest.mark.parametrize("more", [[], ["--binary"], ["--rate", "50,100"]], ids=["json", "binary", "open loop"])
def test_a_real_replica_is_loaded_without_a_failure(served: ReplicaProcess, more: list[str]) -> None:
    arguments = [
        "bench",
        f"{served.url}/v2/models/tiny",
        "--seconds",
        "0.5",
        "--warmup",
        "0.1",
        "--rows",
        "3",
        "--json",
        *more,
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    loads = json.loads(result.stdout)["loads"]
    assert len(loads) == (2 if "--rate" in more else 3)
    assert all(set(load["statuses"]) == {"200"} for load in loads)
    assert all(load["requests"] > 10 for load in loads)


def test_a_search_writes_its_page(served: ReplicaProcess, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ["bench", f"{served.url}/v2/models/tiny", "--p99", "300", "--seconds", "0.1", "--warmup", "0", "--html", str(page)]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "ANSWERS/S" in result.stdout
    assert "<polyline" in page.read_text()


def _options(url: str) -> BenchOptions:
    return BenchOptions(
        url=url, connections=(1,), rates=(), p99_milliseconds=None, arrivals=ArrivalProcess.POISSON, seconds=0.5,
        warmup=0.0, timeout=5.0, most_connections=8, inputs=InputOptions(), body=b'{"inputs": []}', headers={}, key=None, ca_file=None,
        seed=0,
    )  # fmt: skip


def test_a_server_that_refuses_the_first_request_is_not_loaded(served: ReplicaProcess) -> None:
    with pytest.raises(Unavailable) as caught:
        run_bench(_options(f"{served.url}/v2/models/tiny"))
    assert caught.value.reason == "NotServing"
    assert "400" in caught.value.message
    assert "inputs" in caught.value.message


def test_a_server_that_speaks_no_tls_is_said(served: ReplicaProcess) -> None:
    result = CliRunner().invoke(app, ["bench", f"{served.url}/v2/models/tiny".replace("http:", "https:")])
    assert isinstance(result.exception, Unavailable)
    assert "write http://" in result.exception.message


def test_nobody_there_is_said() -> None:
    result = CliRunner().invoke(app, ["bench", "http://127.0.0.1:9/v2/models/m"])
    assert result.exit_code == 1
    assert isinstance(result.exception, Unavailable)
    assert result.exception.reason == "NoMetadata"
    assert "refused" in result.exception.message or "failed" in result.exception.message
