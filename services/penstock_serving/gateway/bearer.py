"""Verifies JSON Web Tokens (RFC 7519) of a model's issuers, by RFC 8725's advice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import jwt

from penstock.errors import Unavailable
from penstock.routing.access import Admitted, RouteIssuer, token_caller
from penstock_serving.gateway.issuers import RSA_ALGORITHMS, Issuers, VerificationKey

ALGORITHMS: Final = (*RSA_ALGORITHMS, "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with public keys. Never `none`, and never HS*, which would take a public key for a shared secret."""
LEEWAY_SECONDS: Final = 30
"""Clocks differ: an expiry or a beginning may be off by so much."""
ADMITTED_SECONDS: Final = 300
"""A verified token is verified anew after this, so that a key that its issuer withdrew ends."""
_REQUIRED: Final = ("iss", "sub", "aud", "exp")


async def verify(
    token: str, issuers: tuple[RouteIssuer, ...], keys: Issuers, namespace: str, now: float
) -> Admitted | None:
    """Who a token stands for, or None where it is not one that these issuers vouch for now.

    Args:
        token: in compact form.
        issuers: those of the model.
        keys: where their keys are.
        namespace: of the model.
        now: epoch seconds.

    Raises:
        Unavailable: the issuer's keys cannot be had.
    """
    try:
        header = jwt.get_unverified_header(token)
        # What the token says of itself only chooses the issuer by whose keys it is then verified.
        claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except (jwt.PyJWTError, ValueError):
        return None
    if header.get("alg") not in ALGORITHMS or "crit" in header:
        return None
    key_id = header.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        return None
    problem: Unavailable | None = None
    for issuer in issuers:
        if issuer.issuer != claimed:
            continue
        try:
            candidates = await keys.keys(namespace, issuer, key_id)
        except Unavailable as error:
            problem = error
            continue
        claims = _claims(token, header["alg"], issuer, candidates)
        if claims is not None:
            until = min(int(claims["exp"]) + LEEWAY_SECONDS, int(now) + ADMITTED_SECONDS)
            return Admitted(token_caller(issuer.issuer, claims["sub"]), until, issuers)
    if problem is not None:
        raise problem
    return None


def _claims(
    token: str, algorithm: str, issuer: RouteIssuer, candidates: tuple[VerificationKey, ...]
) -> Mapping[str, Any] | None:
    """The claims that one of these keys vouches for, where they are what the issuer's entry asks for."""
    for key in candidates:
        if algorithm not in key.algorithms:
            continue
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=[algorithm],
                audience=list(issuer.audiences),
                issuer=issuer.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": list(_REQUIRED)},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        return claims if _has(claims, issuer.required_claims) else None
    return None


def _has(claims: Mapping[str, Any], required: Mapping[str, str]) -> bool:
    """Whether each claim has its value: as text, as one of a list, or as a truth or number written as JSON does."""
    return all(value in _texts(claims.get(name)) for name, value in required.items())


def _texts(value: object) -> list[str]:
    each = value if isinstance(value, list) else [value]
    return [item if isinstance(item, str) else json.dumps(item) for item in each if isinstance(item, str | int)]
