"""TLS between a real gateway and replicas: who gets requests, who gets none, and new certificates under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from cryptography import x509
from tests.integration.behind_gateway import behind_gateway
from tests.integration.gateway_parts import (
    GUARD_SECONDS,
    SECRET,
    Gateway,
    Replica,
    failures,
    gateway,
    load,
    token_of,
    until,
    until_answers,
)
from tests.integration.grpc_parts import raw_request, triton_inputs
from tests.integration.replica_process import document, linear_weights, save_linear
from tests.integration.test_gateway_holding import until_held
from tests.ports import free_port
from tritonclient.grpc import service_pb2_grpc as stubs

from penstock.errors import Unavailable
from penstock.routing.fleet import Endpoint
from penstock.routing.identities import GATEWAY_NAME, replica_name
from penstock.routing.leases import CertificateRequest, ReplicaStats
from penstock.routing.tokens import admin_token
from penstock.serving.control import ReplicaSettings
from penstock_operator.clients.gateway import GatewayClient
from penstock_runtime.authority import OwnKey, PlatformAuthority, client_context, server_context
from penstock_serving.replica.identity import ReplicaIdentity
from penstock_serving.replica.registration import Leases

AUTHORITY = PlatformAuthority(SECRET)
ROWS = np.ones((1, 64), np.float32)
HOLD = {"hold_seconds": 0.5}
"""Of models whose replica gets nothing, so that their clients are told soon."""


@dataclass
class Secured:
    """A gateway, and its control API over TLS."""

    gateway: Gateway
    port: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def call(self, method: str, path: str, body: object, token: str) -> tuple[int, Any]:
        async with self.gateway.session.request(
            method, self.url + path, data=json.dumps(body).encode(), headers={"authorization": f"Bearer {token}"},
            ssl=client_context(AUTHORITY.pem), server_hostname=GATEWAY_NAME,
        ) as response:  # fmt: skip
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def lease(self, replica_id: str, address: str, model: str, **more: Any) -> tuple[int, Any]:
        namespace, name = model.split("/")
        body = {
            "namespace": namespace, "model": name, "version": "1", "revision": "r1", "address": address, "leaseSeconds": 60,
            **more,
        }  # fmt: skip
        return await self.call("PUT", f"/v1/replicas/{quote(replica_id, safe='')}", body, token_of(model))


@asynccontextmanager
async def secured(*arguments: str) -> AsyncIterator[Secured]:
    port = free_port()
    async with gateway("--control-tls-port", str(port), *arguments) as running:
        yield Secured(running, port)


def shown(name: str, authority: PlatformAuthority = AUTHORITY, seconds: float = 3600.0) -> ssl.SSLContext:
    """Of a server with this name in its certificate."""
    context, key = server_context(), OwnKey()
    key.load_into(context, authority.sign(key.public, name, seconds))
    return context


def name_of(model: str, replica_id: str = "r") -> str:
    return replica_name(*model.split("/"), "", replica_id)


def serial_at(address: str, name: str) -> int:
    """Of the certificate that a replica shows, which must hold for its name."""
    host, _, port = address.rpartition(":")
    context = client_context(AUTHORITY.pem)
    with (
        socket.create_connection((host, int(port)), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname=name) as wrapped,
    ):
        certificate = wrapped.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number


def test_a_real_replica_is_asked_over_tls_alone(tmp_path: Path) -> None:
    model = save_linear(tmp_path / "model.onnx")
    port, probes = free_port(), free_port()
    arguments = ("--control-tls-port", str(port), "--probe-port", str(probes))
    told = {"gateways": (f"https://127.0.0.1:{port}",), "gateway_authority": AUTHORITY.pem}
    with behind_gateway(model, *arguments, **told) as served:

        async def ask() -> tuple[int, Any, str]:
            body = json.dumps(document(ROWS)).encode()
            async with gateway_session(served.gateway) as client:
                status, answer, _ = await client.infer("/v2/models/tiny/infer", body)
                metrics = f"http://127.0.0.1:{probes}/replicas/default/tiny/replica-1/metrics"
                async with client.session.get(metrics) as response:
                    return status, answer, await response.text()

        status, answer, metrics = asyncio.run(ask())
        assert status == 200, answer
        np.testing.assert_allclose(answer["outputs"][0]["data"], linear_weights().sum(0), rtol=1e-3, atol=1e-3)
        assert "penstock_" in metrics
        with triton.InferenceServerClient(served.address) as client:
            result = client.infer("tiny", triton_inputs({"x": ROWS})).as_numpy("y")
        np.testing.assert_allclose(result[0], linear_weights().sum(0), rtol=1e-3, atol=1e-3)
        with served.replica.connect() as connection:
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: replica\r\n\r\n")
            assert not connection.recv(65536).startswith(b"HTTP")


@asynccontextmanager
async def gateway_session(running: Gateway) -> AsyncIterator[Gateway]:
    """The gateway, for a loop of one's own."""
    import aiohttp  # noqa: PLC0415 -- only here

    other = Gateway(running.state, running.port, running.control_port)
    async with aiohttp.ClientSession() as other.session:
        yield other


def test_requests_go_to_nobody_who_cannot_prove_who_it_is() -> None:
    """By HAProxy, and by the agent, to which it hands what it cannot send."""
    others = PlatformAuthority("another secret")
    servers = {
        "default/itself": shown(name_of("default/itself")),
        "default/impostor": shown(name_of("default/itself")),
        "default/gateway": shown(GATEWAY_NAME),
        "default/expired": shown(name_of("default/expired"), seconds=-1.0),
        "default/stranger": shown(name_of("default/stranger"), others),
        "default/plain": None,
    }

    async def ask(running: Secured, model: str, context: ssl.SSLContext | None) -> tuple[int, int]:
        await running.gateway.declare(model, **HOLD)
        async with Replica(context=context) as replica:
            assert (await running.lease("r", replica.address, model, encrypted=True))[0] == 200
            status, _, _ = await running.gateway.infer(f"/v2/models/{model.split('/')[1]}/infer")
            return status, replica.answered

    async def run() -> dict[str, tuple[int, int]]:
        async with secured() as running:
            found = await asyncio.gather(*(ask(running, *each) for each in servers.items()))
        return dict(zip(servers, found, strict=True))

    found = asyncio.run(run())
    assert found.pop("default/itself") == (200, 1)
    assert found == dict.fromkeys(found, (503, 0))


def test_a_stream_that_waited_goes_to_nobody_who_cannot_prove_who_it_is() -> None:
    servers = {
        "default/itself": shown(name_of("default/itself")),
        "default/impostor": shown(name_of("default/itself")),
        "default/stranger": shown(name_of("default/stranger"), PlatformAuthority("another secret")),
        "default/plain": None,
    }

    async def ask(running: Secured, channel: grpc.aio.Channel, model: str, context: ssl.SSLContext | None) -> int:
        await running.gateway.declare(model, holdSeconds=GUARD_SECONDS if model == "default/itself" else 3)
        stream = stubs.GRPCInferenceServiceStub(channel).ModelStreamInfer(timeout=GUARD_SECONDS)
        await stream.write(raw_request(model, {"x": ROWS}))
        await until_held(running.gateway, 1, model)
        async with Replica(context=context) as replica:
            assert (await running.lease("r", replica.address, model, encrypted=True))[0] == 200
            await stream.done_writing()
            await stream.code()
            return replica.answered

    async def run() -> dict[str, int]:
        async with (
            asyncio.timeout(120),
            secured() as running,
            grpc.aio.insecure_channel(running.gateway.url.removeprefix("http://")) as channel,
        ):
            found = await asyncio.gather(*(ask(running, channel, *each) for each in servers.items()))
        return dict(zip(servers, found, strict=True))

    assert asyncio.run(run()) == {"default/itself": 1, "default/impostor": 0, "default/stranger": 0, "default/plain": 0}


def test_replicas_with_and_without_tls_share_the_requests_until_it_is_required() -> None:
    async def run() -> None:
        model = "default/m"
        async with (
            secured() as running,
            Replica("old") as old,
            Replica("new", context=shown(name_of(model))) as new,
        ):
            await running.gateway.lease("old", old.address)
            async with load(running.gateway) as answers:
                await until_answers(answers, 10, "old")
                assert (await running.lease("r", new.address, model, encrypted=True))[0] == 200
                await until_answers(answers, 10, "new")
                await until_answers(answers, 10, "old")
                await running.gateway.release("old")
                await until_answers(answers, 10, "new")
            assert failures(answers) == {}

    asyncio.run(run())


def test_a_gateway_that_requires_tls_is_told_nothing_in_the_clear() -> None:
    async def run() -> None:
        async with secured("--require-control-tls") as running, Replica() as replica:
            lease = {"namespace": "default", "model": "m", "version": "1", "revision": "r1", "address": replica.address}
            status, answer = await running.gateway.call("PUT", "/v1/replicas/r", lease, token_of("default/m"))
            assert (status, str(running.port) in answer["error"]) == (403, True)
            assert (await running.gateway.call("GET", "/v1/routes", None, admin_token(SECRET)))[0] == 403
            status, answer = await running.lease("r", replica.address, "default/m")
            assert status == 403
            assert all(part in answer["error"] for part in ("encrypted", "Required", "next revision"))
            asked = CertificateRequest(namespace="default", model="m", request=OwnKey().request()).model_dump()
            path = "/v1/replicas/r/certificate"
            assert (await running.call("POST", path, asked, token_of("default/m")))[0] == 200
            assert (await running.call("POST", path, asked, token_of("default/other")))[0] == 403
            status, answer = await running.call("POST", path, asked | {"request": "none"}, token_of("default/m"))
            assert (status, "request" in answer["error"]) == (400, True)

    asyncio.run(run())


def test_certificates_are_granted_over_tls_alone_and_tls_needs_a_gateway_that_speaks_it() -> None:
    async def run() -> None:
        async with secured() as running, gateway() as without:
            asked = CertificateRequest(namespace="default", model="m", request=OwnKey().request()).model_dump()
            path = "/v1/replicas/r/certificate"
            status, answer = await running.gateway.call("POST", path, asked, token_of("default/m"))
            assert (status, "TLS" in answer["error"]) == (403, True)
            lease = {"namespace": "default", "model": "m", "version": "1", "revision": "r1", "address": "127.0.0.1:9"}
            status, answer = await without.call(
                "PUT", "/v1/replicas/r", lease | {"encrypted": True}, token_of("default/m")
            )
            assert (status, "--control-tls-port" in answer["error"]) == (400, True)

    asyncio.run(run())


def test_new_certificates_lose_no_request() -> None:
    """Of the replica and of the gateway: each is another every two seconds."""

    async def run() -> None:
        identity, model = ReplicaIdentity(AUTHORITY.pem), "default/m"
        async with secured("--certificate-seconds", "4") as running, Replica(context=identity.context) as replica:
            settings = ReplicaSettings(
                namespace="default", model="m", revision="r1", replica_id="r", storage_uri="file:///m", lease_seconds=1.0,
                gateways=(running.url,), registration_token=token_of(model),
            )  # fmt: skip
            leases = Leases(settings, replica.address, "", ReplicaStats, identity=identity)
            await asyncio.wait_for(leases.registered.wait(), 60)
            serials = {await asyncio.to_thread(serial_at, replica.address, name_of(model))}

            async def exchanged() -> bool:
                serials.add(await asyncio.to_thread(serial_at, replica.address, name_of(model)))
                return len(serials) > 2

            async with load(running.gateway) as answers:
                await until(exchanged)
                await until_answers(answers, 20)
            assert failures(answers) == {}
            await leases.leave()

    asyncio.run(run())


def test_a_token_is_shown_to_no_gateway_of_another_authority() -> None:
    """Whoever has the gateway's address learns nothing, and replicas do not take his word for a certificate."""

    async def hold(context: ssl.SSLContext | None, scheme: str, seconds: float) -> bytes:
        heard: list[bytes] = []

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(65536))
            writer.close()

        async with await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            settings = ReplicaSettings(
                namespace="default", model="m", revision="r1", replica_id="r", storage_uri="file:///m", lease_seconds=0.3,
                gateways=(f"{scheme}://127.0.0.1:{port}",), registration_token="a token",
            )  # fmt: skip
            leases = Leases(settings, "127.0.0.1:9", "", ReplicaStats, identity=ReplicaIdentity(AUTHORITY.pem))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_any(heard), seconds)
            await leases.leave()
            return b"".join(heard)

    async def run() -> list[bytes]:
        cases = (
            (shown(GATEWAY_NAME, PlatformAuthority("another")), "https", 1.0),
            (shown(name_of("default/m")), "https", 1.0),
            (None, "http", 1.0),
            (shown(GATEWAY_NAME), "https", GUARD_SECONDS),
        )
        return await asyncio.gather(*(hold(*case) for case in cases))

    *nothing, all_of_it = asyncio.run(run())
    assert nothing == [b"", b"", b""]
    assert b"a token" in all_of_it


async def _any(heard: list[bytes]) -> None:
    while not any(heard):  # noqa: ASYNC110 -- nothing tells us but looking
        await asyncio.sleep(0.01)


def test_the_operator_speaks_tls_to_gateways_and_to_nobody_else() -> None:
    async def run() -> None:
        async with secured("--require-control-tls") as running:

            def routes(authority: PlatformAuthority) -> str:
                trust = client_context(authority.pem)
                client = GatewayClient(Endpoint(running.url, running.url), admin_token(SECRET), trust=trust)
                try:
                    return client.routes()[0].url
                finally:
                    client.close()

            assert await asyncio.to_thread(routes, AUTHORITY) == running.gateway.url
            with pytest.raises(Unavailable) as caught:
                await asyncio.to_thread(routes, PlatformAuthority("another"))
            assert "certificate" in caught.value.message.lower()

    asyncio.run(run())
