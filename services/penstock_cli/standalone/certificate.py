"""A certificate for this machine's own names, for `penstock run --tls`: signed by an authority whose key nobody keeps."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from penstock_runtime.atomic import write_atomically

AUTHORITY_FILE: Final = "ca.crt"
_LIFETIME: Final = timedelta(days=397)
"""The longest that clients take from authorities at large."""
_CLOCKS_APART: Final = timedelta(minutes=5)


def issue_certificate(folder: Path) -> Path:
    """Write `tls.crt`, `tls.key` and `ca.crt`, each run anew.

    Args:
        folder: made for its owner only.

    Returns:
        The authority's file, for clients (`curl --cacert`).
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    signer, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "penstock run, on this machine")])
    authority = (
        _builder(name, name, signer.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(signer, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1"))]
    own = (
        _builder(name, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    written = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomically(folder / "tls.key", written, mode=0o600)
    write_atomically(folder / "tls.crt", own.public_bytes(serialization.Encoding.PEM))
    write_atomically(folder / AUTHORITY_FILE, authority.public_bytes(serialization.Encoding.PEM))
    return folder / AUTHORITY_FILE


def trust_of(authority: Path) -> ssl.SSLContext:
    """A client's context that trusts this authority and no other."""
    return ssl.create_default_context(cafile=str(authority))


def _builder(issuer: x509.Name, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_APART)
        .not_valid_after(now + _LIFETIME)
    )
