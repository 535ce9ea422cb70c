from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from penstock.routing.leases import ReplicaLease
from penstock.routing.table import Replica
from penstock.routing.tokens import former_replica_token, replica_token
from penstock_serving.gateway.control.callers import Callers, RequestRefused, token_of
from penstock_serving.gateway.settings import GatewaySettings


def _request(header: dict[str, str]) -> web.Request:
    """With a head as aiohttp reads it: bytes that are no UTF-8 are halves of surrogate pairs."""
    return cast(web.Request, SimpleNamespace(headers=header))


@pytest.mark.parametrize(
    ("header", "status"),
    [
        pytest.param({}, 401, id="who shows nothing"),
        pytest.param({"Authorization": "Basic abc"}, 401, id="who shows a password"),
        pytest.param({"Authorization": "Bearer \udcff\udcfe"}, 403, id="who shows bytes that are no text"),
        pytest.param({"Authorization": "Bearer r1/a/\udcff/u/0"}, 403, id="also in the form of a token"),
        pytest.param({"Authorization": "Bearer schlüssel"}, 403, id="who shows letters that no token has"),
    ],
)
def test_by_the_head_alone_is_refused(header: dict[str, str], status: int) -> None:
    with pytest.raises(RequestRefused) as refused:
        token_of(_request(header))
    assert refused.value.status == status


def test_a_token_is_what_follows_the_scheme() -> None:
    assert token_of(_request({"Authorization": "Bearer  abc "})) == "abc"


@pytest.mark.parametrize(
    ("token", "trusted"),
    [
        pytest.param(replica_token("s3cret", "ns", "m"), True, id="a token of the model's"),
        pytest.param(former_replica_token("s3cret", "ns", "m"), True, id="its token of a former release"),
        pytest.param("0" * 64, False, id="what only looks like one of a former release"),
    ],
)
def test_who_takes_a_replica_out_is_known_by_a_token_that_holds(token: str, trusted: bool) -> None:  # noqa: FBT001 -- a parameter
    known: list[Any] = []
    callers = Callers(GatewaySettings(secret="s3cret", state_dir=Path("/unused")), known.append)
    lease = ReplicaLease(namespace="ns", model="m", version="1", revision="r", address="10.0.0.1:1")
    replica = Replica("a", lease, 60)
    request = cast(web.Request, SimpleNamespace(headers={"Authorization": f"Bearer {token}"}, transport="connection"))
    assert callers.select_own(request, [replica]) == (replica if trusted else None)
    assert known == (["connection"] if trusted else [])
