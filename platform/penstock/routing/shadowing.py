"""How replicas of one model know requests that other replicas of it show them, and that no client waits for.

Such a request comes behind all clients', is no demand, keeps no trace and is shown to nobody else. So whoever could send one in
a client's name would be told what no client is; only who knows the model's registration token can.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum
from typing import Final

from penstock.routing.tokens import data_token

SHADOW_HEADER: Final = "x-penstock-shadow"
_PURPOSE: Final = b"shadow"


class Shown(StrEnum):
    """Why a request is shown to a replica."""

    SAMPLED = "sampled"
    """A client sent it to another replica. That is counted there alone."""
    REPLAYED = "replayed"
    """No client sent it, since there is no traffic: what becomes of it is counted as of a client's."""


def shadow_words(registration: str) -> dict[Shown, str]:
    """What `SHADOW_HEADER` says, by what the request is; none where the token is of a former release.

    Args:
        registration: the token by which replicas of the model register.
    """
    if not data_token(registration):
        return {}
    return {
        shown: hmac.new(registration.encode(), _PURPOSE + b"/" + shown.encode(), hashlib.sha256).hexdigest()[:32]
        for shown in Shown
    }
