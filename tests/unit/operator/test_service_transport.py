"""Where the operator connects to when a tenant names a Service."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest
from tests.telling import telling

from penstock_operator.clients.ray import PoolUnreachable, RayClient
from penstock_operator.clients.services import ServiceTransport

HOST = "ray-head.vision.svc"


def transport(canonical: str, sent: list[httpx.Request]) -> ServiceTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"ray_version": "2.60.0"})

    def lookup(host: str, port: int) -> list[Any]:
        assert host == HOST
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, canonical, ("10.0.0.7", port))]

    return ServiceTransport(httpx.MockTransport(answer), lookup, ("svc.cluster.local", "cluster.local"))


def test_a_service_is_asked_at_the_address_that_was_looked_at_and_by_its_name() -> None:
    sent: list[httpx.Request] = []
    client = RayClient(f"http://{HOST}:8265", "token", transport(f"{HOST}.cluster.local", sent))
    assert client.version() == "2.60.0"
    (request,) = sent
    assert (request.url.host, request.url.port, request.headers["host"]) == ("10.0.0.7", 8265, f"{HOST}:8265")


def test_an_alias_of_another_tenants_service_gets_neither_request_nor_token() -> None:
    sent: list[httpx.Request] = []
    client = RayClient(f"http://{HOST}:8265", "token", transport("ray-head.speech.svc.cluster.local", sent))
    with pytest.raises(PoolUnreachable, match=telling(HOST, "alias ray-head.speech.svc.cluster.local")):
        client.version()
    assert sent == []


def test_a_service_that_is_not_there_is_told() -> None:
    def lookup(_host: str, _port: int) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    client = RayClient(f"http://{HOST}:8265", None, ServiceTransport(httpx.MockTransport(lambda _: None), lookup))  # type: ignore[arg-type,return-value]
    with pytest.raises(PoolUnreachable, match="Name or service not known"):
        client.version()


def test_the_resolver_of_this_machine_tells_the_canonical_name() -> None:
    """What the real lookup returns has the place of the name and the address that are taken from it."""
    found = socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    assert found[0][3]
    assert found[0][4][0] in {"127.0.0.1", "::1"}
