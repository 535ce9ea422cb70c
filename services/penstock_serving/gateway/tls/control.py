"""Certificates of the platform's own: this gateway's at its control port, and those that it grants to replicas."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from penstock.routing.identities import GATEWAY_NAME, replica_name
from penstock.routing.leases import CertificateGranted
from penstock.routing.tokens import TokenSubject
from penstock_runtime.atomic import write_atomically
from penstock_runtime.authority import OwnKey, PlatformAuthority, client_context, read_request, server_context
from penstock_serving.gateway.settings import GatewaySettings

_RENEWALS_IN_LIFETIME: Final = 2


class ControlCertificates:
    """The authority that follows from the gateway's secret, at work.

    Args:
        settings: the gateway's.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._authority = PlatformAuthority(settings.secret)
        self._file = settings.layout.authority
        self._seconds = settings.certificate_seconds
        self.context: Final[ssl.SSLContext] = server_context()
        """Of the control port."""
        self.trust: Final[ssl.SSLContext] = client_context(self._authority.pem)
        """Of this agent, where it asks replicas itself."""

    def prepare(self) -> None:
        """Before HAProxy's first start: its file of the authority, and this gateway's own certificate."""
        write_atomically(self._file, self._authority.pem.encode())
        key = OwnKey()
        key.load_into(self.context, self._authority.sign(key.public, GATEWAY_NAME, self._seconds))

    async def run(self) -> None:
        """Have a new certificate for ever, well before the former one ends."""
        while True:
            await asyncio.sleep(self._seconds / _RENEWALS_IN_LIFETIME)
            self.prepare()

    def grant(self, subject: TokenSubject, replica_id: str, request: str) -> CertificateGranted:
        """A certificate for a replica.

        Args:
            subject: whose its token is.
            replica_id: under which it registers.
            request: PKCS #10 in PEM.

        Raises:
            Invalid: it is none.
        """
        name = replica_name(subject.namespace, subject.model, subject.uid, replica_id)
        signed = self._authority.sign(read_request(request), name, self._seconds)
        return CertificateGranted(certificate=signed, lifetime_seconds=self._seconds)
