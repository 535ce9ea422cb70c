"""Leases, routes and failures on the real HAProxy. Every wait is a guard against hanging, none is asserted."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.integration.gateway_parts import (
    CLIENTS,
    GUARD_SECONDS,
    SECRET,
    Gateway,
    Replica,
    failures,
    gone,
    load,
    replica_process,
    run,
    until,
    until_answers,
)
from tests.ports import free_port
from tests.telling import Telling, assert_tells


def test_a_new_replica_gets_requests_without_a_reload() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        a = await stack.enter_async_context(Replica("a"))
        b = await stack.enter_async_context(Replica("b"))
        workers = gw.haproxy_pids()
        await gw.lease("a", a.address)
        async with load(gw) as answers:
            await until_answers(answers, 20, by="a")
            await gw.lease("b#1/x", b.address)
            await until_answers(answers, 20, by="b")
        assert failures(answers) == {}
        assert gw.haproxy_pids() == workers

    run(scenario)


def test_a_lease_that_ends_takes_the_replica_out_and_the_server_away() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        a = await stack.enter_async_context(Replica("a"))
        await gw.lease("a", a.address)
        assert (await gw.infer())[1]["replica"] == "a"
        await gw.lease("a", a.address, leaseSeconds=0.5)

        async def cleared() -> bool:
            return not await gw.routes() and not await _servers(gw)

        await until(cleared)
        status, body, _ = await gw.infer()
        assert (status, body) == (404, {"error": Telling("model 'm' not found namespace 'default'")})

    run(scenario)


async def _servers(gw: Gateway) -> list[str]:
    reader, writer = await asyncio.open_unix_connection(str(gw.state / "s" / "run" / "haproxy.sock"))
    writer.write(b"show servers state\n")
    lines = (await reader.read(-1)).decode().splitlines()
    writer.close()
    return [line for line in lines if len(line.split()) > 4 and line.split()[3].startswith("r")]


def test_after_a_delete_nothing_new_arrives_and_what_is_in_flight_is_answered() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        a = await stack.enter_async_context(Replica("a"))
        b = await stack.enter_async_context(Replica("b"))
        await gw.lease("a", a.address)
        a.go_on.clear()
        in_flight = asyncio.create_task(gw.infer())
        await asyncio.wait_for(a.arrived.wait(), GUARD_SECONDS)
        await gw.lease("b", b.address)
        await gw.release("a")
        assert [(await gw.infer())[1]["replica"] for _ in range(20)] == ["b"] * 20
        assert a.answered == 1
        a.go_on.set()
        assert (await in_flight)[1]["replica"] == "a"

    run(scenario)


def test_a_killed_replica_under_load_fails_no_request() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        process, a = await stack.enter_async_context(replica_process("a"))
        _, b = await stack.enter_async_context(replica_process("b"))
        await gw.lease("a", a)
        await gw.lease("b", b)
        async with load(gw) as answers:
            await until_answers(answers, 50, by="a")
            process.kill()
            await until_answers(answers, 300, by="b")
        assert failures(answers) == {}

    run(scenario)


def test_when_the_only_replica_is_killed_its_requests_wait_for_the_next() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        process, a = await stack.enter_async_context(replica_process("a"))
        _, b = await stack.enter_async_context(replica_process("b"))
        await gw.declare(holdSeconds=60)
        await gw.lease("a", a)
        async with load(gw) as answers:
            await until_answers(answers, 50, by="a")
            process.kill()
            await process.wait()
            await gw.lease("a", a, leaseSeconds=0.5)

            async def expired() -> bool:
                return not (await gw.routes())["default/m"]["replicas"]

            await until(expired)
            await gw.lease("b", b)
            await until_answers(answers, 50, by="b")
        assert failures(answers) == {}

    run(scenario)


def test_weights_move_all_requests_to_another_revision_under_load() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        old = await stack.enter_async_context(Replica("old"))
        new = await stack.enter_async_context(Replica("new"))
        await gw.declare(revisions={"r1": 100})
        await gw.lease("old", old.address, revision="r1")
        await gw.lease("new", new.address, revision="r2")
        receiving = {r["replicaId"]: r["receiving"] for r in (await gw.routes())["default/m"]["replicas"]}
        assert receiving == {"old": True, "new": False}
        async with load(gw) as answers:
            await until_answers(answers, 50)
            assert new.answered == 0
            await gw.declare(revisions={"r1": 50, "r2": 50})
            await until_answers(answers, 20, by="new")
            await gw.declare(revisions={"r1": 0, "r2": 100})
            before = old.answered
            await until_answers(answers, 100, by="new")
            assert old.answered - before <= CLIENTS, "what was under way when this was declared"
            await gw.release("old")
        assert failures(answers) == {}

    run(scenario)


def test_shares_hold_whatever_the_number_of_replicas() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        canary = await stack.enter_async_context(Replica("canary"))
        await gw.declare(revisions={"r1": 90, "r2": 10})
        await gw.lease("canary", canary.address, revision="r2")
        for number in range(3):
            replica = await stack.enter_async_context(Replica("stable"))
            await gw.lease(f"stable-{number}", replica.address, revision="r1")
        names = [(await gw.infer())[1]["replica"] for _ in range(1000)]
        # Ten standard deviations about the mean of 100.
        assert 5 < names.count("canary") < 195

    run(scenario)


def test_a_replica_that_comes_back_elsewhere_is_found_there() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        first = await stack.enter_async_context(Replica("first"))
        second = await stack.enter_async_context(Replica("second"))
        await gw.lease("a", first.address)
        assert (await gw.infer())[1]["replica"] == "first"
        await gw.lease("a", second.address)
        assert [(await gw.infer())[1]["replica"] for _ in range(10)] == ["second"] * 10

    run(scenario)


def test_versions_and_namespaces_are_routed_apart() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        one = await stack.enter_async_context(Replica("one"))
        two = await stack.enter_async_context(Replica("two"))
        other = await stack.enter_async_context(Replica("other"))
        await gw.lease("1", one.address, version="1")
        await gw.lease("2", two.address, version="2")
        await gw.lease("3", other.address, "team/m")
        assert (await gw.infer("/v2/models/m/versions/1/infer?x=%20y"))[1]["replica"] == "one"
        status, body, _ = await gw.infer("/default/v2/models/m/versions/2/infer?x=%20y")
        assert (status, body["replica"], body["path"]) == (200, "two", "/default/v2/models/m/versions/2/infer?x=%20y")
        assert (await gw.infer("/team/v2/models/m/infer"))[1]["replica"] == "other"
        assert (await gw.infer("/v2/models/m/versions/9/infer"))[:2] == (
            404,
            {"error": Telling("model 'm' namespace 'default' no version '9' 1, 2")},
        )

    run(scenario)


def test_more_models_than_slots_reload_under_load_without_a_failure() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        a = await stack.enter_async_context(Replica("a"))
        await gw.lease("a", a.address)
        worker = gw.haproxy_pids()[1]
        async with load(gw) as answers:
            await until_answers(answers, 20)
            for number in range(6):
                await gw.lease(f"n{number}", a.address, f"default/m{number}")
            await until_answers(answers, 100)
        assert failures(answers) == {}
        assert not set(worker) >= set(gw.haproxy_pids()[1])
        assert [(await gw.infer(f"/v2/models/m{n}/infer"))[0] for n in range(6)] == [200] * 6

    run(scenario, "--slots", "2")


@pytest.mark.parametrize("which", ["master", "worker"])
def test_a_killed_haproxy_comes_back_with_all_it_had(which: str) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        a = await stack.enter_async_context(Replica("a"))
        await gw.declare(revisions={"r1": 1})
        await gw.lease("a", a.address)
        master, workers = gw.haproxy_pids()
        os.kill(master if which == "master" else workers[0], signal.SIGKILL)
        await until(lambda: gone(master))
        await gw.until_live()
        assert (await gw.infer())[1]["replica"] == "a"
        assert gw.haproxy_pids()[0] != master

    run(scenario)


def test_a_restarted_agent_keeps_routes_and_leaves_no_haproxy_behind() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        a = await stack.enter_async_context(Replica("a"))
        await gw.declare("team/m", revisions={"r7": 100}, holdSeconds=7)
        master, workers = gw.haproxy_pids()
        assert gw.process is not None
        gw.process.kill()
        await gw.ended()
        await until(lambda: gone(master, *workers))
        await gw.start()
        route = (await gw.routes())["team/m"]
        assert (route["declared"]["revisions"], route["declared"]["holdSeconds"], route["replicas"]) == (
            {"r7": 100},
            7,
            [],
        )
        await gw.lease("a", a.address, "team/m", revision="r7")
        assert (await gw.infer("/team/v2/models/m/infer"))[0] == 200

    run(scenario)


def test_a_gateway_shares_its_port_with_nobody() -> None:
    with socket.socket() as other, tempfile.TemporaryDirectory(prefix="gw-") as folder:
        # As HAProxy itself listens where it is not told otherwise: another of the same user gets half of the clients.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        port = other.getsockname()[1]
        secret = Path(folder, "secret")
        secret.write_text(SECRET)
        done = subprocess.run(
            [
                sys.executable, "-m", "penstock_serving.gateway.main", "--port", str(port),
                "--control-port", str(free_port()), "--secret-file", str(secret), "--state-dir", folder,
            ],
            capture_output=True, text=True, timeout=GUARD_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert_tells(done.stderr, f"another program port {port}")


def test_as_many_idle_clients_as_there_may_be_have_no_connection_to_a_replica_closed_after_each_request() -> None:
    most = 256

    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replica = await stack.enter_async_context(Replica("a"))
        await gw.lease("a", replica.address)
        for _ in range(most - 1):
            _, idle = await asyncio.open_connection(gw.address, gw.port)
            stack.callback(idle.close)
        for _ in range(10):
            assert (await gw.infer())[0] == 200
        assert (replica.answered, len(replica.peers)) == (10, 1)

    run(scenario, "--max-connections", str(most), "--max-connections-per-client", str(most))
