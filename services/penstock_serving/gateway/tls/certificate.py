"""A certificate and its key as cert-manager writes them (a Secret of type kubernetes.io/tls), judged before it is used. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from penstock.errors import Invalid

CHAIN_FILE: Final = "tls.crt"
"""The server's certificate, and after it those that lead to a root."""
KEY_FILE: Final = "tls.key"
_SOON: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A chain whose first certificate and key belong together."""

    pem: bytes = field(repr=False)
    """Chain and key in one, as HAProxy reads it."""
    fingerprint: str
    """SHA-1 of the first certificate, in capitals, by which HAProxy names it: a name, no proof of anything."""
    not_before: datetime
    not_after: datetime
    """Of the certificate of the chain that ends first."""
    names: tuple[str, ...]
    """DNS names and addresses for which it is."""

    def complaint(self, now: datetime) -> str:
        """What clients will complain of now or within a week; empty where nothing."""
        if now < self.not_before:
            return f"it is not valid before {self.not_before:%Y-%m-%d %H:%M} UTC"
        if now > self.not_after:
            return f"it ended at {self.not_after:%Y-%m-%d %H:%M} UTC"
        if now > self.not_after - _SOON:
            return f"it ends at {self.not_after:%Y-%m-%d %H:%M} UTC"
        return ""


def parse_certificate(chain: bytes, key: bytes) -> ServerCertificate:
    """A certificate from the files' contents.

    Raises:
        Invalid: they cannot be read, or the key is another's. The message holds nothing of the key.
    """
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        raise Invalid("InvalidCertificate", f"{CHAIN_FILE} holds no certificate in PEM form: {error}") from error
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError) as error:
        raise Invalid("InvalidCertificate", f"{KEY_FILE} holds no unencrypted private key in PEM form") from error
    own = certificates[0]
    if _public(own.public_key()) != _public(private.public_key()):
        raise Invalid(
            "InvalidCertificate", f"the key in {KEY_FILE} is not that of the first certificate in {CHAIN_FILE}"
        )
    encoded = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ServerCertificate(
        pem=b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates) + encoded,
        fingerprint=own.fingerprint(hashes.SHA1()).hex().upper(),  # noqa: S303 (HAProxy's name for it, not a signature)
        not_before=max(each.not_valid_before_utc for each in certificates),
        not_after=min(each.not_valid_after_utc for each in certificates),
        names=_names(own),
    )


def parse_authorities(bundle: bytes) -> Sequence[x509.Certificate]:
    """Whose certificates clients may show.

    Raises:
        Invalid: it holds no certificate.
    """
    try:
        return x509.load_pem_x509_certificates(bundle)
    except ValueError as error:
        raise Invalid(
            "InvalidCertificate", f"the clients' authorities are no certificates in PEM form: {error}"
        ) from error


def _public(key: object) -> bytes:
    encode = key.public_bytes  # type: ignore[attr-defined]  # every kind of public key has it
    encoded: bytes = encode(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress)))
