from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from penstock.api.access import Authentication
from penstock.errors import Unavailable
from penstock.routing.access import RouteAccess, RouteIssuer, RouteKey, fingerprint
from penstock.routing.leases import Route
from penstock_serving.gateway.access.admissions import Admissions
from penstock_serving.gateway.access.gatekeeper import AccessDenied, Gatekeeper
from penstock_serving.gateway.access.issuers import Issuers
from penstock_serving.gateway.access.verification import Verification
from penstock_serving.gateway.table.registry import Registry

ACCESS = RouteAccess(
    required=True,
    keys=(RouteKey(name="a", sha256=fingerprint("A"), requests_per_second=1),),
    issuers=(RouteIssuer(issuer="https://i", audiences=("a",)),),
)


def admit(folder: Path, headers: dict[str, str]) -> str | None:
    async def ask() -> str | None:
        registry = Registry(folder / "routes")
        registry.declare(Route(namespace="ns", model="m", access=ACCESS))
        issuers = Issuers(allow_private=False, ca_file=None)
        gatekeeper = Gatekeeper(registry, Admissions(), issuers, Verification(), Authentication.REQUIRED)
        try:
            return await gatekeeper.admit(headers, ("ns", "m"))
        finally:
            await issuers.close()

    return asyncio.run(ask())


def test_a_key_that_haproxy_could_not_count_is_asked_to_come_again(tmp_path: Path) -> None:
    handed = {"x-penstock-credential": fingerprint("A").upper()}
    with pytest.raises(Unavailable, match="try again"):
        admit(tmp_path, {"authorization": "Bearer A", **handed})
    assert admit(tmp_path, {"authorization": "Bearer A"}) == "key/a"


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer B"}, {"authorization": "Bearer \tA "}, {"x-api-key": "B"}, {}],
    ids=["another key", "a key read otherwise", "a key elsewhere", "none"],
)
def test_a_credential_that_haproxy_read_otherwise_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    handed = {"x-penstock-credential": fingerprint("\tA").upper()}
    with pytest.raises(AccessDenied):
        admit(tmp_path, headers | handed)
