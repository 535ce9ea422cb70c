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
    """It was never shown before: a client sent it to another replica, or it was made. What becomes of it is counted apart from
    clients' requests."""
    REPLAYED = "replayed"
    """It was shown before. Only its times count: whether it is answered was told by the first time."""
    ASKED = "asked"
    """A replica asks itself what it would answer, to have something to compare with: that is counted nowhere."""


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
