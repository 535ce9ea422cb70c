"""Who may say what to whom: keys for each purpose, and a token for each model, derived from the gateway's secret.

The secret itself signs nothing. Each purpose has a key of its own (HKDF), so that what one purpose gives away is worth nothing
to another. A replica is given only tokens of its own model, and of this very object: a deployment of the same name in a
namespace that was made anew has another uid, and with it other tokens.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_KIND: Final = "r1"
_MAC_CHARACTERS: Final = 64
_MOST_CHARACTERS: Final = 1024
_KEPT: Final = 16_384
_SALT: Final = b"penstock/gateway/1"
_ADMIN, _REGISTER, _DATA, _AUTHORITY, _DIGEST = "admin", "register", "data", "authority", "digest"
_DIGEST_BYTES: Final = 6


@dataclass(frozen=True, slots=True)
class TokenSubject:
    """Whose replicas a token is for: one model, and where known the uid of its deployment."""

    namespace: str
    model: str
    uid: str = ""


@lru_cache(maxsize=64)
def _subkey(secret: str, purpose: str) -> bytes:
    """HKDF-SHA256 (RFC 5869) of the secret, 32 bytes: one block of output."""
    extracted = hmac.new(_SALT, secret.encode(), hashlib.sha256).digest()
    return hmac.new(extracted, purpose.encode() + b"\x01", hashlib.sha256).digest()


def _mac(secret: str, purpose: str, *said: str) -> str:
    return hmac.new(_subkey(secret, purpose), "/".join(said).encode(), hashlib.sha256).hexdigest()


@lru_cache(maxsize=_KEPT)
def replica_token(secret: str, namespace: str, model: str, uid: str = "") -> str:
    """The token that lets replicas of one model register. It says itself what it is for, so that it is judged by itself.

    Args:
        secret: the gateway's.
        namespace: of the model.
        model: its name.
        uid: of its deployment; empty where there is none, such as in tests.
    """
    return f"{_KIND}/{namespace}/{model}/{uid}/{_mac(secret, _REGISTER, namespace, model, uid)}"


def subject_of(secret: str, token: str) -> TokenSubject | None:
    """Whose replicas a token of `replica_token` is for; None where it is none."""
    if len(token) > _MOST_CHARACTERS:
        return None
    parts = token.split("/")
    if len(parts) != 5 or parts[0] != _KIND:  # noqa: PLR2004 -- a token's parts
        return None
    subject = TokenSubject(*parts[1:4])
    return subject if matches(token, replica_token(secret, subject.namespace, subject.model, subject.uid)) else None


def uid_of(token: str) -> str:
    """The deployment that a token of `replica_token` is for, by what it says itself; empty where it says nothing."""
    parts = token.split("/")
    return parts[3] if len(parts) == 5 and parts[0] == _KIND else ""  # noqa: PLR2004 -- a token's parts


def former_replica_token(secret: str, namespace: str, model: str) -> str:
    """A model's token as former releases made it, which replicas that started under one go on to show."""
    return hmac.new(secret.encode(), f"replica/{namespace}/{model}".encode(), hashlib.sha256).hexdigest()


def may_be_former(token: str) -> bool:
    """Whether a token has the form of a former release's."""
    return len(token) == _MAC_CHARACTERS and all(each in "0123456789abcdef" for each in token)


@lru_cache(maxsize=64)
def admin_token(secret: str) -> str:
    """The token that lets the operator declare and list routes."""
    return _mac(secret, _ADMIN)


@lru_cache(maxsize=64)
def former_admin_token(secret: str) -> str:
    """The operator's token as former releases made it: a gateway takes it, and a former one takes no other."""
    return hmac.new(secret.encode(), b"admin", hashlib.sha256).hexdigest()


@lru_cache(maxsize=_KEPT)
def data_token(registration: str) -> str:
    """What a gateway shows, with each request, to replicas that register by a token of `replica_token`: 128 bits in hex.

    Both sides know that token, so that nothing else needs to be told. Empty: replicas of a former release's token ask for none.
    """
    if not registration.startswith(f"{_KIND}/"):
        return ""
    return hmac.new(registration.encode(), _DATA.encode(), hashlib.sha256).hexdigest()[:32]


@lru_cache(maxsize=64)
def authority_seed(secret: str) -> bytes:
    """From which the platform's own authority of certificates follows: 32 bytes that are nobody's but the platform's."""
    return _subkey(secret, _AUTHORITY)


@lru_cache(maxsize=64)
def secret_digest(secret: str) -> str:
    """By which it is told whether two run by the same secret, in 12 hex digits. It may be shown to anybody.

    Of a key of its own, by a function that takes 16 MiB and tens of milliseconds, so that a secret that somebody made up is no
    sooner guessed by it; and too short to be anything but compared.
    """
    return hashlib.scrypt(_subkey(secret, _DIGEST), salt=_SALT, n=2**14, r=8, p=1, dklen=_DIGEST_BYTES).hex()


def gateway_word(namespace: str, token: str) -> str:
    """What HAProxy says with each request: the namespace, for the agent, and the data token, for replicas."""
    return f"{namespace}/{token}"


def word_for(secret: str, key: tuple[str, str], uid: str) -> str:
    """What is said to the replicas of one model, by its namespace and name, whose token is of this uid."""
    return gateway_word(key[0], data_token(replica_token(secret, *key, uid)))


def matches(given: str, wanted: str) -> bool:
    """Compare two tokens in constant time."""
    return hmac.compare_digest(given.encode(), wanted.encode())
