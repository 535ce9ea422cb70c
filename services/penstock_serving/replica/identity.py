"""By what gateways know a replica that speaks TLS: a key in its memory, and a certificate for it that a gateway grants."""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final

from penstock.routing.leases import CertificateGranted
from penstock_runtime.authority import OwnKey, client_context, server_context

_RENEWALS_IN_LIFETIME: Final = 2


class ReplicaIdentity:
    """Keys and certificates, one after the other.

    Args:
        authority: the platform's own, in PEM.

    Raises:
        Invalid: it is none.
    """

    def __init__(self, authority: str) -> None:
        self.trust: Final[ssl.SSLContext] = client_context(authority)
        """Of gateways."""
        self.context: Final[ssl.SSLContext] = server_context()
        """Of the replica's socket, which answers nobody before there is a certificate."""
        self._renew_at = self._ends_at = 0.0

    @property
    def due(self) -> bool:
        """Whether a certificate is to be asked for."""
        return time.monotonic() >= self._renew_at

    @property
    def holds(self) -> bool:
        """Whether there is a certificate that has not ended."""
        return time.monotonic() < self._ends_at

    async def renew(self, ask: Callable[[str], Awaitable[CertificateGranted]]) -> None:
        """Take a new key and a certificate for it; new connections are shown it, open ones stay.

        Args:
            ask: a gateway, with the request for the certificate.

        Raises:
            Invalid: what the gateway answers is no certificate for this key.
        """
        asked, key = time.monotonic(), OwnKey()
        granted = await ask(key.request())
        key.load_into(self.context, granted.certificate)
        self._renew_at = asked + granted.lifetime_seconds / _RENEWALS_IN_LIFETIME
        self._ends_at = asked + granted.lifetime_seconds
