"""Who may ask a replica: its gateways alone, which show the model's token with each request, and replicas of the same model.

A pool's network policy keeps strangers away from the socket where the cluster's network enforces it; this holds everywhere.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Final

from penstock.routing.shadowing import Shown, shadow_words
from penstock.routing.tokens import data_token, gateway_word

GATEWAY_HEADER: Final = b"x-penstock-gateway"
_OPEN: Final = b"/v2/health/live"
"""Says nothing of the model."""


class GatewayGuard:
    """What a request must show.

    Args:
        namespace: of the model.
        registration: the token that the replica registers with. One of a former release asks for nothing.
    """

    def __init__(self, namespace: str = "", registration: str = "") -> None:
        token = data_token(registration)
        self._expected = gateway_word(namespace, token).encode() if token else b""
        self._shadow_words = tuple((shown, word.encode()) for shown, word in shadow_words(registration).items())
        self.required = False

    def follow(self, showing: bool) -> None:  # noqa: FBT001 -- what is followed is this word
        """Require the token as soon as every gateway of this replica shows it: one of a former release does not."""
        self.required = showing and bool(self._expected)

    def admits(self, shown: bytes, url: bytes) -> bool:
        """Whether a request passes, in the same time whatever it shows."""
        return not self.required or compare_digest(shown, self._expected) or url == _OPEN

    def why_shown(self, word: bytes) -> Shown | None:
        """As what another replica shows a request; None for who does not know the word, whose request is as any other."""
        return next((shown for shown, known in self._shadow_words if compare_digest(word, known)), None)
