"""Several real gateways behind one name: a fresh one is told before it counts, one that leaves loses no request."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from tests.integration.gateway_parts import SECRET, Gateway, Replica, gateway, until
from tests.ports import free_port
from tests.telling import Telling, assert_tells

from penstock.names import FINALIZER
from penstock.routing.fleet import GatewayState
from penstock.routing.leases import ReplicaStats
from penstock.routing.tokens import admin_token, replica_token
from penstock.serving.control import ReplicaSettings
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.gateway.keeper import GatewayKeeper, KnownDeployments
from penstock_operator.kinds import INFERENCE_DEPLOYMENT
from penstock_operator.operation import Operation
from penstock_operator.runtime.cluster import Key
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.settings import Settings
from penstock_serving.replica.registration import Leases

NAME = "gateways.test"


@dataclass
class Names:
    """A name server for one name, inside this process."""

    addresses: list[str] = field(default_factory=list)
    asked: int = 0

    def find(self, host: str) -> tuple[str, ...]:
        assert host == NAME
        self.asked += 1
        if not self.addresses:
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return tuple(self.addresses)


@dataclass
class World:
    """Deployments as the keeper sees them."""

    known: set[Key] = field(default_factory=set)
    there: set[Key] = field(default_factory=set)
    reconciled: list[Key] = field(default_factory=list)

    def models(self) -> KnownDeployments:
        return KnownDeployments(lambda: set(self.known), self.there.__contains__, self.reconciled.append)


async def _answers(gw: Gateway, url: str) -> bool:
    async with gw.session.get(url) as response:
        return response.status == 200


async def _ready(gw: Gateway) -> tuple[int, str]:
    async with gw.session.get(f"{gw.control}/readyz") as response:
        return response.status, await response.text()


def _keeper(port: int, names: Names, world: World, clock: Callable[[], float] | None = None) -> GatewayKeeper:
    fleet = Fleet((f"http://{NAME}:{port}",), admin_token(SECRET), names.find)
    more = {} if clock is None else {"clock": clock}
    return GatewayKeeper(fleet, world.models(), lambda: True, **more)


@asynccontextmanager
async def _two(*arguments: str) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """The first is complete from the start, the second waits for the operator."""
    port = free_port()
    async with (
        gateway(address="127.0.0.2", control_port=port) as old,
        gateway("--await-operator-seconds", "60", *arguments, address="127.0.0.3", control_port=port) as fresh,
    ):
        yield old, fresh


def test_a_fresh_gateway_gets_its_peers_routes_and_counts_only_when_it_has_all() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60), Replica("a") as replica, _two() as (old, fresh):
            await old.declare("default/m", revisions={"r1": 100})
            await old.declare("default/gone")
            world = World({Key("default", "m"), Key("default", "new")})
            keeper = _keeper(old.control_port, Names(["127.0.0.2", "127.0.0.3"]), world)
            await old.lease("a", replica.address)
            await asyncio.to_thread(keeper.look)
            routes = await fresh.routes()
            assert set(routes) == {"default/m"}
            assert routes["default/m"]["declared"]["revisions"] == {"r1": 100}
            assert world.reconciled == [Key("default", "new"), Key("default", "new")]
            assert await _ready(fresh) == (503, Telling("operator not declared routes"))

            state = await _state(fresh)
            keeper.note_tried(fresh.control, state.instance, Key("default", "new"))
            await asyncio.to_thread(keeper.look)
            assert (await _ready(fresh))[0] == 503, "a model's replicas have not found it yet"
            await fresh.lease("a", replica.address)
            await asyncio.sleep(0.6)
            await asyncio.to_thread(keeper.look)
            assert await _ready(fresh) == (200, "ok")
            assert (await fresh.infer())[0] == 200

    asyncio.run(scenario())


def test_a_deployment_that_cannot_be_read_keeps_no_gateway_incomplete_and_its_route_goes_with_it(
    tmp_path: Path,
) -> None:
    cluster = EmbeddedCluster(tmp_path / "cluster.sqlite")
    for name in ("routed", "unheard-of"):
        about = {"name": name, "namespace": "default", "finalizers": [FINALIZER]}
        model = {"storageUri": "file:///m", "modelFormat": "of-a-newer-release"}
        cluster.apply(INFERENCE_DEPLOYMENT, {"metadata": about, "spec": {"model": model}}, "test")

    async def scenario() -> None:
        async with asyncio.timeout(60), gateway("--await-operator-seconds", "60") as fresh:
            await fresh.declare("default/routed")
            settings = Settings(gateways=(fresh.control,), gateway_secret=SECRET)
            operation = Operation(cluster, settings, lambda *_: None, lambda: True)
            operation.start()
            try:

                async def ready() -> bool:
                    return (await _ready(fresh))[0] == 200

                await until(ready)
                assert set(await fresh.routes()) == {"default/routed"}, "what cannot be read stays as it is"
                for name in ("routed", "unheard-of"):
                    cluster.delete(INFERENCE_DEPLOYMENT, Key("default", name))

                async def gone() -> bool:
                    return not cluster.list(INFERENCE_DEPLOYMENT).items and not await fresh.routes()

                await until(gone)
            finally:
                await asyncio.to_thread(operation.stop, 10.0)

    asyncio.run(scenario())
    cluster.close()


def test_a_request_for_a_model_not_declared_yet_waits_and_is_answered() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60), Replica("a") as replica, _two() as (old, fresh):
            waiting = [asyncio.create_task(fresh.infer(f"/v2/models/{model}/infer")) for model in ("m", "nothing")]
            await fresh.lease("a", replica.address)
            assert (await waiting[0])[0] == 200
            assert not waiting[1].done()
            keeper = _keeper(old.control_port, Names(["127.0.0.2", "127.0.0.3"]), World())
            await asyncio.to_thread(keeper.look)
            assert (await waiting[1])[0] == 404

    asyncio.run(scenario())


def test_without_an_operator_a_gateway_is_ready_in_time_and_calls_no_model_unknown() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60), gateway("--await-operator-seconds", "1") as gw:

            async def ready() -> bool:
                return (await _ready(gw))[0] == 200

            await until(ready)
            status, body, headers = await gw.infer()
            assert (status, headers["retry-after"]) == (503, "1")
            assert_tells(body["error"], "not know yet")

    asyncio.run(scenario())


def test_word_meant_for_a_former_process_at_the_same_address_is_refused() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60), gateway("--await-operator-seconds", "60") as gw:
            answer = await gw.call("PUT", "/v1/complete", {"instance": "former"}, admin_token(SECRET))
            assert answer[0] == 403
            assert (await _ready(gw))[0] == 503

    asyncio.run(scenario())


def test_routes_that_nobody_owns_are_swept_only_on_the_apis_own_word() -> None:
    now = [0.0]

    async def scenario() -> None:
        async with asyncio.timeout(60), _two() as (old, _):
            for model in ("known", "unseen", "gone"):
                await old.declare(f"default/{model}")
            world = World({Key("default", "known")}, there={Key("default", "unseen")})
            keeper = _keeper(old.control_port, Names(["127.0.0.2"]), world, lambda: now[0])
            now[0] += 61.0
            await asyncio.to_thread(keeper.look)
            assert set(await old.routes()) == {"default/known", "default/unseen"}

    asyncio.run(scenario())


def test_addresses_come_and_go_and_a_silent_name_server_changes_nothing() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60), _two() as (old, fresh):
            names = Names(["127.0.0.2", "127.0.0.3"])
            fleet = Fleet((f"http://{NAME}:{old.control_port}",), admin_token(SECRET), names.find)

            def addresses() -> list[str]:
                fleet.refresh()
                return [view.address for views in fleet.sites() for view in views]

            assert await asyncio.to_thread(addresses) == [old.control, fresh.control]
            look = await asyncio.to_thread(fleet.look, "default", "m")
            assert [each.address for each in look.gateways] == [old.control]
            assert [each.address for each in look.joining] == [fresh.control]
            names.addresses = []
            assert await asyncio.to_thread(addresses) == [old.control, fresh.control]
            names.addresses = ["127.0.0.3"]
            assert await asyncio.to_thread(addresses) == [fresh.control]
            alone = await asyncio.to_thread(fleet.look, "default", "m")
            assert [each.address for each in alone.gateways] == [fresh.control], "there is no other to judge by"

    asyncio.run(scenario())


def test_a_gateway_that_does_not_answer_is_left_out_while_another_does() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60), gateway(address="127.0.0.2") as gw:
            names = Names(["127.0.0.2", "127.0.0.9"])
            fleet = Fleet((f"http://{NAME}:{gw.control_port}",), admin_token(SECRET), names.find)
            look = await asyncio.to_thread(fleet.look, "default", "m")
            assert [each.address for each in look.gateways] == [gw.control]
            names.addresses = ["127.0.0.9"]
            fleet.refresh()
            (problem,) = (await asyncio.to_thread(fleet.look, "default", "m")).gateways
            assert_tells(problem.message, "127.0.0.9")

    asyncio.run(scenario())


def test_clients_move_to_the_other_gateway_when_one_leaves_and_none_fails() -> None:
    async def scenario() -> None:
        async with (
            asyncio.timeout(90),
            Replica("a") as replica,
            gateway() as staying,
            gateway("--shutdown-delay-seconds", "2", "--drain-seconds", "5") as leaving,
        ):
            service = [staying, leaving]
            for each in service:
                await each.lease("a", replica.address)
            answers: Counter[Any] = Counter()
            stop = asyncio.Event()
            clients = [asyncio.create_task(_client(service, answers, stop)) for _ in range(16)]

            async def answered(gw: Gateway, wanted: int) -> bool:
                return answers[gw.port, 200] >= wanted

            for each in service:
                await until(partial(answered, each, 50))
            assert leaving.process is not None
            leaving.process.send_signal(signal.SIGTERM)

            async def unready() -> bool:
                return (await _ready(leaving))[0] == 503

            await until(unready)
            service.remove(leaving)  # as the Service does
            await leaving.ended()
            await until(partial(answered, staying, answers[staying.port, 200] + 50))
            stop.set()
            await asyncio.gather(*clients)
            assert {key for key in answers if key[1] not in {200, "close"}} == set()
            assert answers[leaving.port, "close"] > 0

    asyncio.run(scenario())


async def _client(service: list[Gateway], answers: Counter[Any], stop: asyncio.Event) -> None:
    """Keeps a connection until it is told that it ends, and opens the next to any gateway that is ready."""
    while not stop.is_set():
        gw = random.choice(service)
        async with aiohttp.ClientSession() as session:
            for _ in range(1000):
                try:
                    async with session.post(f"{gw.url}/v2/models/m/infer", data=b"{}") as response:
                        await response.read()
                        answers[gw.port, response.status] += 1
                        if response.headers.get("connection", "").lower() == "close":
                            answers[gw.port, "close"] += 1
                            break
                except aiohttp.ClientError as error:
                    answers[gw.port, repr(error)] += 1
                    break
                if stop.is_set():
                    break
                await asyncio.sleep(0.005)


def test_a_replica_holds_a_lease_with_each_gateway_as_they_come_and_go() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60), _two() as (old, fresh):
            names = Names(["127.0.0.2"])

            async def find(host: str) -> tuple[str, ...]:
                return names.find(host)

            settings = ReplicaSettings(
                namespace="default", model="m", revision="r1", replica_id="a", storage_uri="file:///m", lease_seconds=2,
                gateways=(f"http://{NAME}:{old.control_port}",), registration_token=replica_token(SECRET, "default", "m"),
            )  # fmt: skip
            leases = Leases(settings, "127.0.0.1:9", "", ReplicaStats, find)

            async def listed(gw: Gateway, *, wanted: bool) -> bool:
                return any(each["replicas"] for each in (await gw.routes()).values()) is wanted

            await until(lambda: listed(old, wanted=True))
            names.addresses.append("127.0.0.3")
            await until(lambda: listed(fresh, wanted=True))
            names.addresses.clear()  # the name server does not answer
            asked = names.asked

            async def asked_again() -> bool:
                return names.asked >= asked + 3

            await until(asked_again)
            assert await listed(old, wanted=True)
            assert await listed(fresh, wanted=True)
            names.addresses.append("127.0.0.3")
            await until(lambda: listed(old, wanted=False))
            await leases.leave()
            assert await listed(fresh, wanted=False)

    asyncio.run(scenario())


async def _state(gw: Gateway) -> GatewayState:
    headers = {"authorization": f"Bearer {admin_token(SECRET)}"}
    async with gw.session.head(f"{gw.control}/v1/routes", headers=headers) as response:
        return GatewayState.read(response.headers)


def test_probes_and_metrics_may_have_a_port_of_their_own() -> None:
    port = free_port()

    async def scenario() -> None:
        async with asyncio.timeout(60), gateway("--probe-port", str(port)) as gw:
            # HAProxy says that it lives before the agent has told it the routes.
            await until(partial(_answers, gw, f"http://127.0.0.1:{port}/readyz"))
            for path, text in (("/healthz", "ok"), ("/readyz", "ok"), ("/metrics", "penstock_gateway_requests_total")):
                async with gw.session.get(f"http://127.0.0.1:{port}{path}") as response:
                    assert response.status == 200
                    assert text in await response.text()
                async with gw.session.get(f"{gw.control}{path}") as response:
                    assert response.status == 404, "metrics name all tenants' models, and replicas reach this port"

    asyncio.run(scenario())
