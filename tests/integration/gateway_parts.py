"""A real gateway process, small real HTTP replicas, and a client, for the gateway's integration tests."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import ssl
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from aiohttp import web
from tests import preloaded
from tests.ports import free_port
from tests.preloaded import Forked

from penstock.addresses import join_port
from penstock.routing.tokens import admin_token, replica_token

SECRET = "integration-secret"
GUARD_SECONDS = 60.0
CLIENTS = 8
"""Of a load, where it is not told how many."""


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what another process does; the guard fails the test."""
    async with asyncio.timeout(GUARD_SECONDS):
        while not await condition():  # noqa: ASYNC110 -- nothing tells us but looking
            await asyncio.sleep(0.01)


async def gone(*pids: int) -> bool:
    """Whether none of these processes is left."""
    return not any(Path("/proc", str(pid)).exists() for pid in pids)  # noqa: ASYNC240 -- procfs does not block


@dataclass
class Gateway:
    """`penstock-gateway` as a child process."""

    state: Path
    port: int
    control_port: int
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: Forked | None = None
    session: aiohttp.ClientSession = field(init=False)
    address: str = "127.0.0.1"
    trust: ssl.SSLContext | None = None
    """Of clients, where they speak TLS; it must trust `localhost`."""

    @property
    def url(self) -> str:
        return (
            f"http://{join_port(self.address, self.port)}" if self.trust is None else f"https://localhost:{self.port}"
        )

    @property
    def control(self) -> str:
        return f"http://{join_port(self.address, self.control_port)}"

    async def start(self) -> None:
        secret = self.state / "secret"
        secret.write_text(SECRET + "\n")
        arguments = (
            "--secret-file", str(secret), "--state-dir", str(self.state / "s"),
            "--host", self.address, "--port", str(self.port),
            "--control-host", self.address, "--control-port", str(self.control_port),
            "--drain-seconds", "0", *self.arguments,
        )  # fmt: skip
        self.process = preloaded.start("penstock_serving.gateway.main", arguments, os.environ | self.environment)
        await self.until_live()

    async def until_live(self, what: str = "live") -> None:
        """Until it says so of itself, or that it is `ready`."""
        async with asyncio.timeout(GUARD_SECONDS):
            while True:
                try:
                    async with self.session.get(f"{self.url}/v2/health/{what}") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await self.ended()

    async def ended(self) -> int:
        """Its exit status, once it has ended."""
        assert self.process is not None
        return await asyncio.wait_for(asyncio.to_thread(self.process.wait), GUARD_SECONDS)

    def haproxy_pids(self) -> tuple[int, list[int]]:
        """The master and its workers."""
        assert self.process is not None
        master = _children(self.process.pid)[0]
        return master, _children(master)

    async def call(self, method: str, path: str, body: object = None, token: str | None = None) -> tuple[int, Any]:
        """Call the control API; the answer's JSON, or None without a body."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.request(method, self.control + path, data=data, headers=headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def lease(self, replica_id: str, address: str, model: str = "default/m", **more: Any) -> None:
        namespace, name = model.split("/")
        body = {
            "namespace": namespace, "model": name, "version": "1", "revision": "r1", "address": address,
            "leaseSeconds": 60, **more,
        }  # fmt: skip
        answer = await self.call("PUT", f"/v1/replicas/{quote(replica_id, safe='')}", body, token_of(model))
        assert answer == (200, {"leaseSeconds": body["leaseSeconds"]}), answer

    async def release(self, replica_id: str, model: str = "default/m") -> None:
        assert await self.call("DELETE", f"/v1/replicas/{replica_id}", None, token_of(model)) == (204, None)

    async def declare(self, model: str = "default/m", **fields: Any) -> None:
        namespace, name = model.split("/")
        body = {"namespace": namespace, "model": name, **fields}
        assert await self.call("PUT", f"/v1/routes/{model}", body, admin_token(SECRET)) == (204, None)

    async def routes(self) -> dict[str, dict[str, Any]]:
        status, body = await self.call("GET", "/v1/routes", None, admin_token(SECRET))
        assert status == 200
        return {f"{route['namespace']}/{route['model']}": route for route in body["routes"]}

    async def infer(
        self, path: str = "/v2/models/m/infer", body: bytes = b"{}", headers: dict[str, str] | None = None
    ) -> tuple[int, Any, aiohttp.typedefs.CIMultiDictProxy[str]]:
        async with self.session.post(self.url + path, data=body, headers=headers or {}) as response:
            return response.status, await response.json(), response.headers


def token_of(model: str) -> str:
    return replica_token(SECRET, *model.split("/"))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@asynccontextmanager
async def gateway(
    *arguments: str,
    address: str = "127.0.0.1",
    control_port: int | None = None,
    trust: ssl.SSLContext | None = None,
    **environment: str,
) -> AsyncIterator[Gateway]:
    """A running gateway with a state folder whose path is short enough for sockets."""
    state = Path(tempfile.mkdtemp(prefix="gw-"))
    running = Gateway(
        state, free_port(), control_port or free_port(), arguments, environment, address=address, trust=trust
    )
    timeout = aiohttp.ClientTimeout(total=GUARD_SECONDS)
    try:
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=0, ssl=trust or True)
        ) as session:
            running.session = session
            try:
                await running.start()
                yield running
            finally:
                await running.stop()
    finally:
        shutil.rmtree(state)


def run(scenario: Callable[[Gateway, AsyncExitStack], Awaitable[None]], *arguments: str) -> None:
    """Carry out a scenario at a gateway of its own, with a stack for what it starts."""

    async def main() -> None:
        async with asyncio.timeout(120), gateway(*arguments) as running, AsyncExitStack() as stack:
            await scenario(running, stack)

    asyncio.run(main())


class Replica:
    """A replica in this process: answers with its name and what it was sent."""

    def __init__(self, name: str = "a", delay: float = 0.0, context: ssl.SSLContext | None = None) -> None:
        self.name = name
        self.context = context
        """Of TLS; None: it speaks none."""
        self.delay = delay
        self.answered = 0
        self.peers: set[object] = set()
        """Addresses of the connections on which requests came."""
        self.arrived = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.status = 200
        self.sampled: str | None = None
        self.own_trace = f"00-{'5' * 32}-{'6' * 16}-01"
        """That it says of a request without a trace, where it says anything."""
        self.address = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.context).start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.answered += 1
        if request.transport is not None:
            self.peers.add(request.transport.get_extra_info("peername"))
        self.arrived.set()
        await asyncio.sleep(self.delay)
        await self.go_on.wait()
        seen = {"replica": self.name, "path": request.path_qs, "size": len(body), "headers": dict(request.headers)}
        response = web.json_response(seen, status=self.status)
        trace = request.headers.get("traceparent", self.own_trace if self.sampled is not None else None)
        if trace is not None:
            response.headers["traceresponse"] = trace if self.sampled is None else trace[:-2] + self.sampled
        return response


@asynccontextmanager
async def replica_process(name: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A replica that can be killed, and its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("gateway_replica.py")), name, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), GUARD_SECONDS)
        yield process, line.decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        # To the end of its output: a pipe that is open when the loop ends raises later, in whichever test it is collected.
        await process.communicate()


@asynccontextmanager
async def load(
    gateway: Gateway, path: str = "/v2/models/m/infer", clients: int = CLIENTS
) -> AsyncIterator[Counter[Any]]:
    """Closed-loop clients while the block runs; counts answers by (status, replica), failures by exception."""
    answers: Counter[Any] = Counter()
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            try:
                status, body, _ = await gateway.infer(path)
                answers[status, body.get("replica")] += 1
            except aiohttp.ClientError as error:
                answers[repr(error)] += 1
            await asyncio.sleep(0.005)

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    try:
        yield answers
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def until_answers(answers: Counter[Any], more: int, by: str | None = None) -> None:
    """Wait for this many more answers, from one replica if named."""

    def count() -> int:
        return sum(n for key, n in answers.items() if by is None or (isinstance(key, tuple) and key[1] == by))

    wanted = count() + more

    async def enough() -> bool:
        return count() >= wanted

    await until(enough)


def failures(answers: Counter[Any]) -> dict[Any, int]:
    return {key: n for key, n in answers.items() if not (isinstance(key, tuple) and key[0] == 200)}
