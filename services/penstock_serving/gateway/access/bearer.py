"""Verifies JSON Web Tokens (RFC 7519) of a model's issuers, by RFC 8725's advice."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import jwt

from penstock.errors import Unavailable
from penstock.routing.access import Admitted, RouteIssuer, token_caller
from penstock_serving.gateway.access.issuers import Issuers
from penstock_serving.gateway.access.jwks import RSA_ALGORITHMS, PublicKey, VerificationKey

ALGORITHMS: Final = (*RSA_ALGORITHMS, "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with public keys. Never `none`, and never HS*, which would take a public key for a shared secret."""
LEEWAY_SECONDS: Final = 30
"""Clocks differ: an expiry or a beginning may be off by so much."""
ADMITTED_SECONDS: Final = 300
"""A verified token is verified anew after this, so that a key that its issuer withdrew ends."""
MOST_CANDIDATES: Final = 4
"""Sets of keys that are looked through for the one key of a token: a model may name several for one issuer."""
Run = Callable[[Callable[[], "Mapping[str, Any] | None"]], Awaitable["Mapping[str, Any] | None"]]
"""Runs a check of a signature, which takes time."""
_REQUIRED: Final = ("iss", "sub", "aud", "exp")


async def _run_here(check: Callable[[], Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    return check()


async def verify(
    token: str, issuers: tuple[RouteIssuer, ...], keys: Issuers, namespace: str, now: float, *, run: Run = _run_here
) -> Admitted | None:
    """Who a token stands for, or None where it is not one that these issuers vouch for now.

    A token is tried against one key: the one that it names, or else the only one that may have signed it.

    Args:
        token: in compact form.
        issuers: those of the model.
        keys: where their keys are.
        namespace: of the model.
        now: epoch seconds.
        run: where the signature is checked.

    Raises:
        Unavailable: the issuer's keys cannot be had.
    """
    said = _read_unverified(token)
    if said is None:
        return None
    algorithm, key_id, claimed = said
    # A model may ask for several things of one issuer's tokens; whose signature it is is found out once.
    entries: dict[str | None, list[RouteIssuer]] = {}
    for issuer in issuers:
        if issuer.issuer == claimed:
            entries.setdefault(issuer.jwks_uri, []).append(issuer)
    problem: Unavailable | None = None
    found: list[tuple[VerificationKey, Sequence[RouteIssuer]]] = []
    for alike in list(entries.values())[:MOST_CANDIDATES]:
        try:
            known = await keys.keys(namespace, alike[0], key_id)
        except Unavailable as error:
            problem = error
            continue
        found += [(key, alike) for key in known if algorithm in key.algorithms]
    named = [each for each in found if key_id is not None and each[0].key_id == key_id]
    candidates = named or found
    if len(candidates) == 1:
        key, asking = candidates[0]
        claims = await run(partial(_claims, token, algorithm, asking, key.public))
        if claims is not None:
            until = min(int(claims["exp"]) + LEEWAY_SECONDS, int(now) + ADMITTED_SECONDS)
            return Admitted(token_caller(claims["iss"], claims["sub"]), until, issuers)
    if problem is not None:
        raise problem
    return None


def _read_unverified(token: str) -> tuple[str, str | None, object] | None:
    """What a token says of itself, which only chooses the keys that it is then verified by.

    Returns:
        Its algorithm, its key's id and its issuer; None where it is not one to verify at all.
    """
    try:
        header = jwt.get_unverified_header(token)
        claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS or "crit" in header or not (key_id is None or isinstance(key_id, str)):
        return None
    return algorithm, key_id, claimed


def _claims(token: str, algorithm: str, entries: Sequence[RouteIssuer], key: PublicKey) -> Mapping[str, Any] | None:
    """The claims that a key vouches for, where they are what one of the issuer's entries asks for."""
    try:
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=[audience for each in entries for audience in each.audiences],
            issuer=entries[0].issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": list(_REQUIRED)},
        )
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return claims if any(_satisfies(claims, each) for each in entries) else None


def _satisfies(claims: Mapping[str, Any], entry: RouteIssuer) -> bool:
    """Whether a token says all that one entry asks for."""
    return not set(entry.audiences).isdisjoint(_texts(claims["aud"])) and _has_claims(claims, entry.required_claims)


def _has_claims(claims: Mapping[str, Any], required: Mapping[str, str]) -> bool:
    """Whether each claim has its value: as text, as one of a list, or as a truth or number written as JSON does."""
    return all(value in _texts(claims.get(name)) for name, value in required.items())


def _texts(value: object) -> list[str]:
    each = value if isinstance(value, list) else [value]
    return [item if isinstance(item, str) else json.dumps(item) for item in each if isinstance(item, str | int)]
