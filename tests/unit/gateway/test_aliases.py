"""Services that the gateway follows to wake a model."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from penstock_serving.gateway.services import alias_of

HOST = "ray-head.vision.svc"


@pytest.mark.parametrize(
    ("host", "canonical", "alias"),
    [
        pytest.param(HOST, HOST, None, id="a Service itself"),
        pytest.param(
            HOST, "ray-head.speech.svc.cluster.local", "ray-head.speech.svc.cluster.local", id="an ExternalName"
        ),
        pytest.param("127.0.0.1", "not asked", None, id="an address"),
    ],
)
def test_an_alias_is_told(host: str, canonical: str, alias: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(asked: str, *_arguments: object, **_options: object) -> list[Any]:
        assert asked == HOST
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, canonical, ("10.0.0.7", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert asyncio.run(alias_of(host)) == alias
