from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.access_parts import bearer, sha256

from penstock.api.access import Authentication
from penstock.routing.access import Denial, RouteAccess, RouteKey
from penstock.routing.leases import Route
from penstock_serving.gateway.access.admissions import Admissions
from penstock_serving.gateway.access.gatekeeper import AccessDenied, Gatekeeper
from penstock_serving.gateway.access.issuers import Issuers
from penstock_serving.gateway.access.verification import Verification
from penstock_serving.gateway.table.registry import Registry


class Keys(tuple[RouteKey, ...]):
    """A model's keys, which count how often they are walked over."""

    __slots__ = ()
    walks = 0

    def __iter__(self) -> Iterator[RouteKey]:
        Keys.walks += 1
        return super().__iter__()


def declare(registry: Registry, model: str, *secrets: str) -> None:
    keys = Keys(RouteKey(name=f"k{number}", sha256=sha256(secret)) for number, secret in enumerate(secrets))
    access = RouteAccess.model_construct(required=True, keys=keys)
    registry.declare(Route(namespace="ns", model=model, access=access))


def test_no_request_costs_a_walk_over_the_keys(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "routes.json")
    for number in range(10):
        declare(registry, f"m{number}", "own", "shared")
    issuers = Issuers(allow_private=False, ca_file=None)
    gatekeeper = Gatekeeper(registry, Admissions(), issuers, Verification(), Authentication.REQUIRED)
    Keys.walks = 0
    for _ in range(20):
        for ask in (
            lambda: gatekeeper.admit_to_unknown(bearer("guess"), "ns"),
            lambda: asyncio.run(gatekeeper.admit(bearer("guess"), ("ns", "m0"))),
        ):
            with pytest.raises(AccessDenied) as refused:
                ask()
            assert refused.value.refusal is Denial.UNKNOWN
        gatekeeper.admit_to_unknown(bearer("shared"), "ns")
        assert asyncio.run(gatekeeper.admit(bearer("own"), ("ns", "m9"))) == "key/k0"
        registry.keyring.locks(registry.table.keys(), {}, time.time(), default_required=True)
    assert Keys.walks <= 10


def test_a_route_that_changes_costs_its_own_keys_only(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "routes.json")
    for number in range(10):
        declare(registry, f"m{number}", "a")
    assert len(registry.keyring.uses("ns", sha256("a"))) == 10
    declare(registry, "m3", "b")
    Keys.walks = 0
    assert len(registry.keyring.uses("ns", sha256("a"))) == 9
    assert set(registry.keyring.uses("ns", sha256("b"))) == {"m3"}
    assert Keys.walks <= 2
