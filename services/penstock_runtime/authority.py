"""The platform's own authority of certificates, by which gateways and replicas know each other.

Its key follows from the gateways' secret, so that it is kept nowhere, every gateway has the same, and a new secret ends all that it
signed. What it signs lives for hours and has a key that never leaves its process's memory.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from penstock.errors import Invalid
from penstock.routing.tokens import authority_seed

_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Penstock's gateways and replicas")])
_SINCE: Final = datetime(2020, 1, 1, tzinfo=UTC)
_FOR_EVER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""RFC 5280, 4.1.2.5: no end is known. The secret is exchanged instead."""
_CLOCKS_APART: Final = timedelta(minutes=5)


class PlatformAuthority:
    """Signs certificates for gateways and replicas.

    Args:
        secret: the gateways'.
    """

    def __init__(self, secret: str) -> None:
        self._key = ed25519.Ed25519PrivateKey.from_private_bytes(authority_seed(secret))
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        own = _builder(self._key.public_key(), _SINCE, _FOR_EVER, _NAME)
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self._certificate = (
            own.serial_number(1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(self._identifier, critical=False)
            .sign(self._key, None)
        )

    @property
    def pem(self) -> str:
        """Its certificate: the same bytes whoever makes it from this secret, since Ed25519 draws no lots."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def sign(self, public: ec.EllipticCurvePublicKey, name: str, seconds: float) -> str:
        """A server's certificate in PEM, from now on for so many seconds.

        Args:
            public: the server's key.
            name: by which it is to be known, and by no other.
            seconds: to its end.
        """
        now = datetime.now(UTC)
        signed = (
            _builder(public, now - _CLOCKS_APART, now + timedelta(seconds=seconds), x509.Name([]))
            .serial_number(x509.random_serial_number())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier), critical=False
            )
            .sign(self._key, None)
        )
        return signed.public_bytes(serialization.Encoding.PEM).decode()


class OwnKey:
    """A key on P-256 that lives in this process's memory alone."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self._key.public_key()

    def request(self) -> str:
        """A request for a certificate (PKCS #10, PEM), which proves that the key is held."""
        made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(self._key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()

    def load_into(self, context: ssl.SSLContext, certificate: str) -> None:
        """Have a server's new connections use this key and its certificate; those that are open keep theirs.

        Raises:
            Invalid: it is no certificate, or another key's.
        """
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # `ssl` reads files only: this one has no name and is in no file system.
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, certificate.encode() + key)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        except (ssl.SSLError, OSError) as error:
            raise Invalid("InvalidCertificate", f"the certificate cannot be used: {error}") from error
        finally:
            os.close(descriptor)


def read_request(pem: str) -> ec.EllipticCurvePublicKey:
    """The key for which a certificate is asked.

    Raises:
        Invalid: it is no request, its signature is another key's, or the key is not on P-256.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        public, proved = request.public_key(), request.is_signature_valid
    except ValueError as error:
        raise Invalid("InvalidCertificate", f"request: this is no PKCS #10 in PEM: {error}") from error
    if not proved:
        raise Invalid("InvalidCertificate", "request: its signature is not of the key that is in it")
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise Invalid("InvalidCertificate", "request: the key must be on P-256")
    return public


def server_context() -> ssl.SSLContext:
    """Of a server that is given its certificate later, and again and again.

    Nothing is resumed: whoever connects sees a certificate that holds now.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    return context


def client_context(authority: str) -> ssl.SSLContext:
    """Of a client that trusts this authority (PEM) and no other.

    Raises:
        Invalid: it is no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=authority)
    except (ssl.SSLError, ValueError) as error:
        raise Invalid("InvalidCertificate", f"the gateways' authority is no certificate in PEM: {error}") from error
    return context


def _builder(
    public: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, begins: datetime, ends: datetime, subject: x509.Name
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(_NAME)
        .subject_name(subject)
        .public_key(public)
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
