"""Brings HAProxy to hold the certificate that is in a folder now, with no reload and no connection lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from penstock.errors import Invalid, Unavailable
from penstock.telemetry import names
from penstock_runtime.atomic import write_atomically
from penstock_serving.gateway.haproxy.runtime_socket import exchange_certificate, fingerprint_of
from penstock_serving.gateway.settings import GatewaySettings
from penstock_serving.gateway.tls.certificate import (
    CHAIN_FILE,
    KEY_FILE,
    ServerCertificate,
    parse_authorities,
    parse_certificate,
)

logger = logging.getLogger(__name__)
_LOOK_SECONDS = 5.0


class CertificateKeeper:
    """Looks at the folder, and at what HAProxy holds, again and again.

    HAProxy reads the file of its own at each start; a worker that runs is told by its runtime API. A pair that is no good is
    told of and not taken: what served before serves on.

    Args:
        settings: the gateway's; `tls_certificate` is set.
        edition: which configuration HAProxy's present worker runs; empty before the first.
    """

    def __init__(self, settings: GatewaySettings, folder: Path, edition: Callable[[], str]) -> None:
        self._folder = folder
        self._clients_ca = settings.tls_client_ca_file
        self._layout = settings.layout
        self._edition = edition
        self._held: ServerCertificate | None = None
        self._told = ""

    @property
    def not_after(self) -> float:
        """When the certificate ends, as a Unix time; 0 before one is held."""
        return self._held.not_after.timestamp() if self._held else 0.0

    def prepare(self) -> None:
        """Before HAProxy's first start: its file, from the folder.

        Raises:
            Invalid: there is no pair, or none that is good.
        """
        if self._clients_ca is not None:
            parse_authorities(_content(self._clients_ca))
        found = self._read()
        self._write(found)
        logger.info("TLS by the certificate for %s, until %s", ", ".join(found.names) or "no name", found.not_after)
        self._complain(found.complaint(datetime.now(UTC)))

    def register(self, registry: CollectorRegistry) -> None:
        """Add the metric of when it ends."""
        gauge = Gauge(names.METRIC_GATEWAY_CERTIFICATE_END, "When the certificate ends, Unix time.", registry=registry)
        gauge.set_function(lambda: self.not_after)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except Unavailable as error:
                logger.warning("%s; the certificate is looked at again in %g s", error, _LOOK_SECONDS)

    async def look(self) -> None:
        """Take a new pair up, and see that HAProxy holds what its file says.

        Raises:
            Unavailable: HAProxy does not answer.
        """
        try:
            found = await asyncio.to_thread(self._read)
        except Invalid as error:
            self._complain(f"{error.message}; the former one serves on")
        else:
            if self._held is None or found.pem != self._held.pem:
                await asyncio.to_thread(self._write, found)
                logger.info("a new certificate for %s, until %s", ", ".join(found.names), found.not_after)
            self._complain(found.complaint(datetime.now(UTC)))
        if self._held is not None and self._edition():
            await self._bring_up_to_date(self._held)

    async def _bring_up_to_date(self, wanted: ServerCertificate) -> None:
        socket, file = self._layout.runtime_socket, self._layout.certificate
        edition = self._edition()
        if await fingerprint_of(socket, file, edition) == wanted.fingerprint:
            return
        complaint = await exchange_certificate(socket, file, wanted.pem, edition)
        if complaint:
            raise Unavailable("HaproxyRefused", f"HAProxy does not take the new certificate: {complaint}")

    def _read(self) -> ServerCertificate:
        return parse_certificate(_content(self._folder / CHAIN_FILE), _content(self._folder / KEY_FILE))

    def _write(self, found: ServerCertificate) -> None:
        write_atomically(self._layout.certificate, found.pem, mode=0o600)
        self._held = found

    def _complain(self, complaint: str) -> None:
        """Say once what is wrong, and again where it changes."""
        if complaint and complaint != self._told:
            logger.error("the certificate in %s: %s", self._folder, complaint)
        self._told = complaint


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Invalid("InvalidCertificate", f"cannot read {file}: {error.strerror}") from error
