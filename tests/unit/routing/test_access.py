from __future__ import annotations

from typing import Any

import pytest

from penstock.routing.access import (
    Allow,
    Denial,
    RouteAccess,
    RouteIssuer,
    RouteKey,
    Verify,
    credential,
    decide,
    fingerprint,
)
from penstock.routing.leases import Route
from penstock_serving.gateway.access.keyring import Keyring

NOW = 1000.0
ISSUER = RouteIssuer(issuer="https://i", audiences=("a",))


def key(secret: str, name: str, **more: Any) -> RouteKey:
    return RouteKey(name=name, sha256=fingerprint(secret), **more)


A, B, ENDED = key("A", "a"), key("B", "b"), key("E", "e", expires_at=1000)
GUARDED = RouteAccess(required=True, keys=(A, ENDED))


@pytest.mark.parametrize(
    ("access", "given", "expected"),
    [
        (GUARDED, "A", Allow("key/a")),
        (GUARDED, None, Denial.MISSING),
        (GUARDED, "C", Denial.UNKNOWN),
        (GUARDED, "E", Denial.UNKNOWN),
        (GUARDED, "B", Denial.OTHER_MODELS),
        (GUARDED, "x.y.z", Denial.UNKNOWN),
        (RouteAccess(required=True, issuers=(ISSUER,)), "x.y.z", Verify("x.y.z", (ISSUER,))),
        (RouteAccess(required=True, issuers=(ISSUER,)), "xyz", Denial.UNKNOWN),
        (RouteAccess(required=True, issuers=(ISSUER,)), "x.y." + "z" * 20_000, Denial.UNKNOWN),
        (RouteAccess(required=False), "A", Allow(None)),
        (None, None, Allow(None)),
    ],
    ids=[
        "a key of the model",
        "none at all",
        "a key that nobody knows",
        "a key that has ended",
        "a key to another model of the namespace",
        "a token where there are no issuers",
        "a token where there are",
        "what is neither key nor token",
        "a token that is too long",
        "an open model asks nobody",
        "of which nothing is declared, where models are open",
    ],
)
def test_who_is_let_in(access: RouteAccess | None, given: str | None, expected: object) -> None:
    keyring = Keyring()
    declared = {"m": access, "n": RouteAccess(required=True, keys=(B,))}
    keyring.follow({("ns", model): Route(namespace="ns", model=model, access=each) for model, each in declared.items()})
    uses = {} if given is None else keyring.uses("ns", fingerprint(given))
    assert decide(access, "m", uses, given, NOW, default_required=False) == expected


def test_of_which_nothing_is_declared_is_closed_where_models_are() -> None:
    assert decide(None, "m", {"n": A}, "A", NOW, default_required=True) is Denial.NOT_YET


@pytest.mark.parametrize(
    ("authorization", "api_key", "expected"),
    [
        ("Bearer k", None, "k"),
        ("bearer  k ", None, "k"),
        ("Bearer k", "l", "k"),
        ("Basic k", "l", "l"),
        ("Bearer", None, None),
        (None, " k ", "k"),
        (None, "", None),
        (None, None, None),
    ],
)
def test_where_a_credential_is(authorization: str | None, api_key: str | None, expected: str | None) -> None:
    assert credential(authorization, api_key) == expected


def test_every_refusal_has_a_status() -> None:
    assert [refusal.status for refusal in Denial] == [401, 401, 403, 503, 429]
