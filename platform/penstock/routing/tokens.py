"""Who may register what: a token for each model, derived from the gateway's secret.

A replica is given only its own model's token, so that a tenant cannot route to or impersonate another's.
"""

from __future__ import annotations

import hashlib
import hmac


def replica_token(secret: str, namespace: str, model: str) -> str:
    """The token that lets replicas of one model register: HMAC-SHA256 of `replica/namespace/model`, in hex."""
    return hmac.new(secret.encode(), f"replica/{namespace}/{model}".encode(), hashlib.sha256).hexdigest()


def admin_token(secret: str) -> str:
    """The token that lets the operator declare and list routes: HMAC-SHA256 of `admin`, in hex."""
    return hmac.new(secret.encode(), b"admin", hashlib.sha256).hexdigest()


def matches(given: str, wanted: str) -> bool:
    """Compare two tokens in constant time."""
    return hmac.compare_digest(given.encode(), wanted.encode())
