from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from penstock.routing.access import (
    Admitted,
    Authenticity,
    Grant,
    Lock,
    Locks,
    ModelKey,
    NamespaceKey,
    RouteAccess,
    RouteIssuer,
    RouteKey,
    fingerprint,
)
from penstock.routing.keys import KeySet
from penstock.routing.leases import Route
from penstock_serving.gateway.access.keyring import Keyring

NOW = 1000.0
ISSUER = RouteIssuer(issuer="https://i", audiences=("a",))
Declared = Mapping[ModelKey, RouteAccess | None]


def key(secret: str, name: str, **more: Any) -> RouteKey:
    return RouteKey(name=name, sha256=fingerprint(secret), **more)


A, B, ENDED = key("A", "a"), key("B", "b"), key("E", "e", expires_at=1000)
GUARDED = RouteAccess(required=True, keys=(A, ENDED))


def routes(declared: Declared) -> dict[ModelKey, Route]:
    return {
        (namespace, model): Route(namespace=namespace, model=model, access=access)
        for (namespace, model), access in declared.items()
    }


def locks(
    declared: Declared,
    admitted: Mapping[tuple[str, str, str], Admitted] | None = None,
    *,
    default_required: bool = False,
) -> Locks:
    keyring = Keyring()
    keyring.follow(routes(declared))
    return keyring.locks(declared, admitted or {}, NOW, default_required=default_required)


def grant(name: str, limit: int = 0, *, everywhere: bool = False, until: int = 253_402_300_799) -> Grant:
    return Grant(f"key/{name}", limit, until, everywhere)


def test_a_key_to_all_models_of_a_namespace_is_kept_once() -> None:
    both = RouteAccess(required=True, keys=(A, B))
    found = locks(
        {("ns", "m"): both, ("ns", "n"): GUARDED, ("ns", "open"): RouteAccess(required=False), ("other", "m"): both}
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
        }
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
    found = locks({("ns", "m"): access}, default_required=default_required)
    assert found.models.get(("ns", "m")) == expected


@pytest.mark.parametrize(
    ("issuers", "until", "held"),
    [((ISSUER,), 1001, True), ((ISSUER,), 1000, False), ((), 1001, False)],
    ids=["for as long as it holds", "not after its end", "not where the model's issuers are others now"],
)
def test_a_verified_token_is_let_in(issuers: tuple[RouteIssuer, ...], until: int, *, held: bool) -> None:
    token = ("ns", "m", "t" * 64)
    declared = {("ns", "m"): RouteAccess(required=True, issuers=issuers)}
    found = locks(declared, {token: Admitted("jwt/x", until, (ISSUER,))})
    assert dict(found.single) == ({token: Grant("jwt/x", 0, until, everywhere=False)} if held else {})


def test_what_models_say_of_a_key_is_found_by_its_hash() -> None:
    keyring = Keyring()
    keyring.follow(
        routes({("ns", "m"): GUARDED, ("ns", "open"): RouteAccess(required=False, keys=(A,)), ("b", "m"): None})
    )
    assert keyring.uses("ns", fingerprint("A")) == {"m": A}
    assert keyring.uses("ns", fingerprint("E")) == {"m": ENDED}
    for namespace, secret in (("ns", "B"), ("b", "A"), ("nowhere", "A")):
        assert keyring.uses(namespace, fingerprint(secret)) == {}


SHARED = RouteAccess(required=True, shared=True)
EVERY, ONE = key("A", "a"), key("B", "b")
TOLD = KeySet.from_keys(
    [NamespaceKey(**EVERY.model_dump()), NamespaceKey(**ONE.model_dump(), deployments=("m", "gone"))]
)


def followed(declared: Declared, told: KeySet | None) -> Keyring:
    keyring = Keyring()
    keyring.follow(routes(declared), {} if told is None else {"ns": told})
    return keyring


def test_a_namespaces_keys_open_what_is_declared_to_be_opened_by_them() -> None:
    declared = {("ns", "m"): SHARED, ("ns", "n"): SHARED, ("other", "m"): SHARED}
    keyring = followed(declared, TOLD)
    found = keyring.locks(declared, {}, NOW, default_required=False)
    a, b = fingerprint("A"), fingerprint("B")
    assert dict(found.namespaces) == {("ns", a): grant("a", everywhere=True), ("ns", b): grant("b")}
    assert dict(found.single) == {("ns", "m", b): grant("b")}
    assert set(keyring.uses("ns", a)) == {"m", "n"}
    assert set(keyring.uses("ns", b)) == {"m"}
    assert not keyring.uses("other", a)


@pytest.mark.parametrize(
    ("told", "expected"),
    [(None, Authenticity.UNDECIDED), (KeySet(), Authenticity.UNDECIDED), (KeySet.from_keys([]), Authenticity.KEY)],
    ids=["they were never told", "they could not be taken", "there are none"],
)
def test_a_model_that_a_namespaces_keys_open_is_where(told: KeySet | None, expected: Authenticity) -> None:
    declared = {("ns", "m"): SHARED}
    keyring = followed(declared, told)
    assert keyring.locks(declared, {}, NOW, default_required=False).models["ns", "m"].authentication is expected
    assert keyring.is_decided(("ns", "m")) is (expected is Authenticity.KEY)


def test_keys_of_either_telling_open_what_they_are_told_to() -> None:
    declared = {("ns", "m"): SHARED, ("ns", "old"): RouteAccess(required=True, keys=(EVERY,))}
    keyring = followed(
        declared, KeySet.from_keys([NamespaceKey(**EVERY.model_dump()), NamespaceKey(**ONE.model_dump())])
    )
    found = keyring.locks(declared, {}, NOW, default_required=False)
    assert found.namespaces["ns", fingerprint("A")].everywhere
    assert set(found.single) == {("ns", "m", fingerprint("B"))}


def test_a_keyring_that_followed_every_change_is_as_one_that_knew_the_last_from_the_start() -> None:
    chance = random.Random(7)
    keyring, table = Keyring(), {}

    def some_access() -> RouteAccess | None:
        if chance.random() < 0.2:
            return None
        keys = [
            key(secret, f"{secret}{chance.randrange(2)}".lower(), expires_at=chance.choice((900, 2000, 3000)),
                requests_per_second=chance.choice((None, None, 2, 3)))
            for secret in "ABCD" if chance.random() < 0.6
        ]  # fmt: skip
        return RouteAccess(required=chance.random() < 0.8, keys=tuple(keys))

    for _ in range(300):
        changed = routes({(chance.choice(("x", "y")), chance.choice("mno")): some_access() for _ in range(2)})
        gone = {each for each in table if chance.random() < 0.1}
        table = {each: route for each, route in (table | changed).items() if each not in gone}
        keyring.follow(table)
        fresh = Keyring()
        fresh.follow(table)
        assert keyring.locks(table, {}, NOW, default_required=True) == fresh.locks(
            table, {}, NOW, default_required=True
        )
        for namespace in "xy":
            for secret in "ABCD":
                digest = fingerprint(secret)
                assert keyring.uses(namespace, digest) == fresh.uses(namespace, digest)
