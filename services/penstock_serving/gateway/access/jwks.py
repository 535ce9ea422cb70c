"""JSON Web Key Sets (RFC 7517): the keys of one that can verify signatures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

logger = logging.getLogger(__name__)
PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
"""What an RSA key may verify whose set binds it to nothing."""
_MAX_KEYS: Final = 64
_RSA_BITS: Final = range(2048, 4097)
_RSA_MOST_EXPONENT: Final = 65537
"""Larger numbers only make verification slow, for all. Issuers have keys of 2048 to 4096 bits with just this exponent."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key of an issuer."""

    key_id: str | None
    algorithms: tuple[str, ...]
    """Signatures that it may verify."""
    public: PublicKey


def usable_keys(document: Mapping[str, Any]) -> tuple[VerificationKey, ...]:
    """The keys of a JWK set that can verify signatures: public ones, meant for that, of a sound size.

    Args:
        document: the set as JSON.

    Raises:
        ValueError: this is no JWK set.
    """
    rows = document.get("keys")
    if not isinstance(rows, list):
        raise ValueError("a JWK set has a list of keys")  # noqa: TRY004 -- the document is wrong
    found = []
    for row in rows[:_MAX_KEYS]:
        if not isinstance(row, dict) or row.get("use", "sig") != "sig" or row.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        try:
            key = jwt.PyJWK(row)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
            logger.info("a key of a JWK set is not used: %s", error)
            continue
        public = key.key
        if isinstance(public, PublicKey) and _is_sound(public):
            anything = isinstance(public, RSAPublicKey) and "alg" not in row
            found.append(VerificationKey(key.key_id, RSA_ALGORITHMS if anything else (key.algorithm_name,), public))
    return tuple(found)


def _is_sound(public: PublicKey) -> bool:
    if not isinstance(public, RSAPublicKey):
        return True
    return public.key_size in _RSA_BITS and public.public_numbers().e <= _RSA_MOST_EXPONENT
