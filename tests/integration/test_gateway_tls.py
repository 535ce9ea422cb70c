"""TLS at a real gateway: versions, new certificates under load, bad ones, clients' certificates."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import tritonclient.grpc as triton
from cryptography import x509
from tests.certificates import Authority, Pair
from tests.integration.behind_gateway import behind_gateway
from tests.integration.gateway_parts import Gateway, Replica, failures, gateway, load, until, until_answers
from tests.integration.grpc_parts import triton_inputs
from tests.integration.replica_process import linear_weights, save_linear
from tests.ports import free_port
from tests.telling import assert_tells
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner, Result

from penstock.errors import Invalid, Unavailable
from penstock_cli.main import app
from penstock_cli.standalone.certificate import issue_certificate, trust_of
from penstock_serving.gateway.settings import read_settings
from penstock_serving.gateway.tls.keeping import CertificateKeeper

_TLS_1_1, _TLS_1_2 = b"\x03\x02", b"\x03\x03"
_ALERT, _PROTOCOL_VERSION = 0x15, 70


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def trusting(authority: Authority, own: Pair | None = None, folder: Path | None = None) -> ssl.SSLContext:
    """A client's context: whom it trusts, and the certificate that it shows."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if own is not None and folder is not None:
        own.write(folder)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


def serial_at(port: int, context: ssl.SSLContext) -> int:
    """Of the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as wrapped,
    ):
        shown = wrapped.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def alert_to(port: int, version: bytes) -> int | None:
    """What a server refuses a client of one version of TLS with; None where it goes on."""
    # ECDHE-ECDSA with AES-128, of TLS 1.1 and of 1.2; P-256; ECDSA with SHA-256.
    extensions = b"\x00\x0a\x00\x04\x00\x02\x00\x17" + b"\x00\x0d\x00\x04\x00\x02\x04\x03"
    hello = version + bytes(32) + b"\x00" + b"\x00\x04\xc0\x09\xc0\x2b" + b"\x01\x00"
    hello += len(extensions).to_bytes(2, "big") + extensions
    handshake = b"\x01" + len(hello).to_bytes(3, "big") + hello
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        raw.sendall(b"\x16\x03\x01" + len(handshake).to_bytes(2, "big") + handshake)
        answer = raw.recv(7)
    return answer[6] if answer[0] == _ALERT else None


async def until_shown(running: Gateway, pair: Pair) -> None:
    assert running.trust is not None

    async def shown() -> bool:
        try:
            return await asyncio.to_thread(serial_at, running.port, running.trust) == pair.serial
        except OSError:  # nobody listens while HAProxy starts anew
            return False

    await until(shown)


def test_clients_speak_tls_and_nothing_else(authority: Authority, tmp_path: Path) -> None:
    async def run() -> None:
        folder = authority.sign().write(tmp_path)
        async with (
            gateway("--tls-certificate", str(folder), trust=trusting(authority)) as running,
            Replica() as replica,
        ):
            await running.lease("r", replica.address)
            status, answer, _ = await running.infer()
            assert (status, answer["replica"]) == (200, "a")
            assert await asyncio.to_thread(alert_to, running.port, _TLS_1_1) == _PROTOCOL_VERSION
            assert await asyncio.to_thread(alert_to, running.port, _TLS_1_2) is None
            with pytest.raises(aiohttp.ClientError):
                await running.session.get(f"http://127.0.0.1:{running.port}/v2/health/live")

    asyncio.run(run())


def test_new_certificates_lose_no_request_and_reload_nothing(authority: Authority, tmp_path: Path) -> None:
    async def run() -> None:
        folder = authority.sign().write(tmp_path)
        async with (
            gateway("--tls-certificate", str(folder), trust=trusting(authority)) as running,
            Replica() as replica,
        ):
            await running.lease("r", replica.address)
            _, before = running.haproxy_pids()
            async with load(running) as answers:
                await until_answers(answers, 20)
                fresh = authority.sign()
                fresh.write(folder)
                await until_shown(running, fresh)
                await until_answers(answers, 20)
            assert failures(answers) == {}
            assert running.haproxy_pids()[1] == before

    asyncio.run(run())


def test_a_bad_pair_leaves_the_former_one_and_a_restart_of_haproxy_keeps_it(
    authority: Authority, tmp_path: Path
) -> None:
    async def run() -> None:
        good, fresh = authority.sign(), authority.sign()
        folder = good.write(tmp_path)
        async with gateway("--tls-certificate", str(folder), trust=trusting(authority)) as running:
            (folder / "tls.crt").write_bytes(fresh.chain)  # the key is still the former one's
            metrics = f"{running.control}/metrics"

            async def looked() -> bool:
                async with running.session.get(metrics) as response:
                    return "penstock_gateway_certificate_not_after" in await response.text()

            await until(looked)
            _, workers = running.haproxy_pids()
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            await until_shown(running, good)
            (folder / "tls.key").write_bytes(fresh.key)
            await until_shown(running, fresh)

    asyncio.run(run())


def test_clients_show_a_certificate_where_they_must(authority: Authority, tmp_path: Path) -> None:
    async def run() -> None:
        clients, strangers = Authority("clients"), Authority("strangers")
        folder = authority.sign().write(tmp_path / "server")
        bundle = tmp_path / "clients.pem"
        bundle.write_bytes(clients.pem)
        own = trusting(authority, clients.sign("caller"), tmp_path / "own")
        more = ("--tls-certificate", str(folder), "--tls-client-ca-file", str(bundle))
        async with gateway(*more, trust=own) as running, Replica() as replica:
            await running.lease("r", replica.address)
            assert (await running.infer())[0] == 200
            for name, context in (
                ("none", trusting(authority)),
                ("a stranger's", trusting(authority, strangers.sign("caller"), tmp_path / "strange")),
            ):
                with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                    async with running.session.get(f"{running.url}/v2/health/live", ssl=context) as response:
                        pytest.fail(f"{name}: {response.status}")

    asyncio.run(run())


def test_a_gateway_without_its_certificate_does_not_start(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    # A folder of its own would have too long a path for a socket.
    state = ("--secret-file", str(secret), "--state-dir", "/nowhere", "--port", str(free_port()))
    settings = read_settings([*state, "--tls-certificate", str(tmp_path / "none")], {})
    with pytest.raises(Invalid) as caught:
        CertificateKeeper(settings, tmp_path / "none", lambda: "").prepare()
    assert "tls.crt" in caught.value.message
    with pytest.raises(Invalid) as caught:
        read_settings([*state, "--tls-client-ca-file", str(secret)], {})
    assert "--tls-certificate" in caught.value.message


def test_a_load_is_driven_over_tls_by_the_certificate_of_this_machine(tmp_path: Path) -> None:
    authority = issue_certificate(tmp_path / "tls")

    request = tmp_path / "request.json"
    request.write_text("{}")
    own = ["--body", str(request)]

    def bench(port: int, *more: str) -> Result:
        url = f"https://127.0.0.1:{port}/v2/models/m"
        # A state folder of its own: the authority of another one is not asked.
        arguments = [
            "bench",
            url,
            "--state-dir",
            str(tmp_path / "state"),
            "--connections",
            "2",
            "--seconds",
            "0.2",
            "--json",
            *more,
        ]
        return CliRunner().invoke(app, arguments)

    async def run() -> tuple[Result, ...]:
        folder = str(authority.parent)
        async with gateway("--tls-certificate", folder, trust=trust_of(authority)) as running, Replica() as replica:
            await running.lease("r", replica.address)
            assert (await running.infer())[0] == 200
            named = await asyncio.to_thread(bench, running.port, *own, "--ca-file", str(authority))
            untrusted = await asyncio.to_thread(bench, running.port, *own)
            undescribed = await asyncio.to_thread(bench, running.port)
            shutil.copytree(authority.parent, tmp_path / "state" / "tls")
            return named, await asyncio.to_thread(bench, running.port, *own), untrusted, undescribed

    *trusted, untrusted, undescribed = asyncio.run(run())
    for result in trusted:
        assert result.exit_code == 0, result.output
        assert set(json.loads(result.stdout)["loads"][0]["statuses"]) == {"200"}
    for result in (untrusted, undescribed):
        assert isinstance(result.exception, Unavailable)
        assert_tells(result.exception.message, "certificate --ca-file")


def test_a_key_for_this_machine_is_its_owners_alone(tmp_path: Path) -> None:
    authority = issue_certificate(tmp_path / "tls")
    assert (authority.parent / "tls.key").stat().st_mode & 0o077 == 0
    assert authority.parent.stat().st_mode & 0o077 == 0
    first = (authority.parent / "tls.crt").read_bytes()
    issue_certificate(tmp_path / "tls")
    assert (authority.parent / "tls.crt").read_bytes() != first


def test_grpc_is_spoken_over_tls_too(authority: Authority, tmp_path: Path) -> None:
    folder = authority.sign().write(tmp_path / "server")
    model = save_linear(tmp_path / "model.onnx")
    with behind_gateway(model, "--tls-certificate", str(folder), trust=trusting(authority)) as served:
        roots = tmp_path / "roots.pem"
        roots.write_bytes(authority.pem)
        with triton.InferenceServerClient(served.address, ssl=True, root_certificates=str(roots)) as client:
            assert client.is_server_live()
            rows = np.ones((1, 64), np.float32)
            result = client.infer("tiny", triton_inputs({"x": rows})).as_numpy("y")
        np.testing.assert_allclose(result[0], linear_weights().sum(0), rtol=1e-3, atol=1e-3)
        with (
            triton.InferenceServerClient(served.address, ssl=True) as stranger,
            pytest.raises(InferenceServerException),
        ):
            stranger.is_server_live()
