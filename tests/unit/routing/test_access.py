from __future__ import annotations

from typing import Any

import pytest

from penstock.routing.access import (
    Admitted,
    Authenticity,
    Grant,
    Let,
    Lock,
    Locks,
    Refusal,
    RouteAccess,
    RouteIssuer,
    RouteKey,
    Verify,
    credential,
    decide,
    fingerprint,
    locks,
)

NOW = 1000.0
ISSUER = RouteIssuer(issuer="https://i", audiences=("a",))


def key(secret: str, name: str, **more: Any) -> RouteKey:
    return RouteKey(name=name, sha256=fingerprint(secret), **more)


A, B, ENDED = key("A", "a"), key("B", "b"), key("E", "e", expires_at=1000)
GUARDED = RouteAccess(required=True, keys=(A, ENDED))


@pytest.mark.parametrize(
    ("access", "given", "expected"),
    [
        (GUARDED, "A", Let("key/a")),
        (GUARDED, None, Refusal.MISSING),
        (GUARDED, "C", Refusal.UNKNOWN),
        (GUARDED, "E", Refusal.UNKNOWN),
        (GUARDED, "B", Refusal.OTHER_MODELS),
        (GUARDED, "x.y.z", Refusal.UNKNOWN),
        (RouteAccess(required=True, issuers=(ISSUER,)), "x.y.z", Verify("x.y.z", (ISSUER,))),
        (RouteAccess(required=True, issuers=(ISSUER,)), "xyz", Refusal.UNKNOWN),
        (RouteAccess(required=True, issuers=(ISSUER,)), "x.y." + "z" * 20_000, Refusal.UNKNOWN),
        (RouteAccess(required=False), "A", Let(None)),
        (None, None, Let(None)),
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
    neighbours = [RouteAccess(required=True, keys=(B,))]
    assert decide(access, neighbours, given, NOW, default_required=False) == expected


def test_of_which_nothing_is_declared_is_closed_where_models_are() -> None:
    assert decide(None, [], "A", NOW, default_required=True) is Refusal.NOT_YET


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
    assert [refusal.status for refusal in Refusal] == [401, 401, 403, 503, 429]


def grant(name: str, limit: int = 0, *, everywhere: bool = False, until: int = 253_402_300_799) -> Grant:
    return Grant(f"key/{name}", limit, until, everywhere)


def test_a_key_to_all_models_of_a_namespace_is_kept_once() -> None:
    both = RouteAccess(required=True, keys=(A, B))
    found = locks(
        {("ns", "m"): both, ("ns", "n"): GUARDED, ("ns", "open"): RouteAccess(required=False), ("other", "m"): both},
        {},
        NOW,
        default_required=False,
    )
    a, b = fingerprint("A"), fingerprint("B")
    assert found == Locks(
        models={
            ("ns", "m"): Lock(Authenticity.KEY, 0),
            ("ns", "n"): Lock(Authenticity.KEY, 0),
            ("other", "m"): Lock(Authenticity.KEY, 0),
        },
        namespaces={
            ("ns", a): grant("a", everywhere=True),
            ("ns", b): grant("b"),
            ("other", a): grant("a", everywhere=True),
            ("other", b): grant("b", everywhere=True),
        },
        single={("ns", "m", b): grant("b")},
    )


def test_where_routes_differ_on_a_key_the_stricter_word_counts() -> None:
    strict, loose = key("A", "a", requests_per_second=2, expires_at=2000), key("A", "a", expires_at=3000)
    found = locks(
        {
            ("ns", "m"): RouteAccess(required=True, keys=(strict,)),
            ("ns", "n"): RouteAccess(required=True, keys=(loose,)),
        },
        {},
        NOW,
        default_required=False,
    )
    assert dict(found.namespaces) == {("ns", fingerprint("A")): grant("a", 2, everywhere=True, until=2000)}


@pytest.mark.parametrize(
    ("access", "default_required", "expected"),
    [
        (None, False, None),
        (None, True, Lock(Authenticity.UNDECIDED, 0)),
        (RouteAccess(required=False), True, None),
        (RouteAccess(required=False, requests_per_second=3), True, Lock(Authenticity.ANYONE, 3)),
        (RouteAccess(required=True, requests_per_second=3), False, Lock(Authenticity.KEY, 3)),
        (RouteAccess(required=True, issuers=(ISSUER,)), False, Lock(Authenticity.KEY_OR_JWT, 0)),
    ],
    ids=[
        "an open model that is not bounded needs no lock",
        "of which nothing is declared is closed where models are",
        "an open model stays open there",
        "an open model may be bounded",
        "a closed one too",
        "issuers make tokens count",
    ],
)
def test_a_models_lock(access: RouteAccess | None, expected: Lock | None, *, default_required: bool) -> None:
    found = locks({("ns", "m"): access}, {}, NOW, default_required=default_required)
    assert found.models.get(("ns", "m")) == expected


@pytest.mark.parametrize(
    ("issuers", "until", "held"),
    [((ISSUER,), 1001, True), ((ISSUER,), 1000, False), ((), 1001, False)],
    ids=["for as long as it holds", "not after its end", "not where the model's issuers are others now"],
)
def test_a_verified_token_is_let_in(issuers: tuple[RouteIssuer, ...], until: int, *, held: bool) -> None:
    token = ("ns", "m", "t" * 64)
    declared = {("ns", "m"): RouteAccess(required=True, issuers=issuers)}
    found = locks(declared, {token: Admitted("jwt/x", until, (ISSUER,))}, NOW, default_required=False)
    assert dict(found.single) == ({token: Grant("jwt/x", 0, until, everywhere=False)} if held else {})
