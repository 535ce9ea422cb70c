"""Signatures of model folders, in sigstore's model-signing format, with a local ECDSA P-256 key: no network is used.

`model.sig` in the folder covers every other file in it, and verification fails for files that were changed, removed or
added. The library takes more than half a second to import (it brings sigstore), so it is imported where it is used.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.optimization.statements import SignedStatement, Statement, signed_bytes
from penstock.serving.manifest import SIGNATURE_NAME

__all__ = [
    "SIGNATURE_NAME", "derive_key", "make_keys", "pem_of", "public_key", "sign", "sign_statement", "verify",
    "verify_statement",
]  # fmt: skip

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of its group (SEC 2, secp256r1)."""


def make_keys(private: Path) -> str:
    """Write a new private key, readable by its owner only, unless there is one. Returns the public key in PEM.

    Safe for two processes at once: both get the key of the one that came first.

    Raises:
        Invalid: what is there is no such key.
    """
    if not private.exists():
        private.parent.mkdir(parents=True, exist_ok=True)
        pem = pem_of(ec.generate_private_key(ec.SECP256R1()))[0].encode()
        # mkstemp makes the file with mode 0600, and a link fails where another process was first.
        handle, name = tempfile.mkstemp(dir=private.parent, prefix=f".{private.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # then the other's key is the key
                os.link(name, private)
        finally:
            Path(name).unlink()
    return public_key(private)


def public_key(private: Path) -> str:
    """The public key in PEM of a private key's file.

    Raises:
        Invalid: it cannot be read or is not an unencrypted elliptic-curve key.
    """
    return _pem(_load_private_key(private).public_key())


def sign(folder: Path, private: Path) -> None:
    """Write `model.sig`, which covers every other file in the folder. An older one is replaced.

    Raises:
        Invalid: the key cannot be used.
    """
    from model_signing import hashing, signing  # noqa: PLC0415 -- slow to import, see above

    public_key(private)
    target = folder / SIGNATURE_NAME
    partial = folder.parent / f".{folder.name}.{os.getpid()}.{SIGNATURE_NAME}"
    config = hashing.Config().set_ignored_paths(paths=[SIGNATURE_NAME], ignore_git_paths=False)
    try:
        signing.Config().use_elliptic_key_signer(private_key=private).set_hashing_config(config).sign(folder, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def verify(folder: Path, trusted: Sequence[str]) -> None:
    """Check that one of the trusted keys signed exactly what the folder holds.

    Args:
        folder: with `model.sig` in it.
        trusted: public keys in PEM.

    Raises:
        Invalid: SignatureMissing, KeyNotTrusted or SignatureInvalid.
    """
    signature = folder / SIGNATURE_NAME
    if not signature.is_file():
        raise Invalid(
            Reason.SIGNATURE_MISSING,
            f"{folder} has no {SIGNATURE_NAME}: optimized models are served only when signed; publish it again",
        )
    key = _signer(signature, trusted)
    from model_signing import hashing, verifying  # noqa: PLC0415 -- slow to import, see above

    config = hashing.Config().set_ignored_paths(paths=[SIGNATURE_NAME], ignore_git_paths=False)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(key.encode())
        file.flush()
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=file.name).set_hashing_config(config)
        try:
            verifier.verify(folder, signature)
        except (ValueError, InvalidSignature, OSError, KeyError, IndexError, TypeError) as error:
            detail = str(error) or "the signature is not by that key"
            raise Invalid(
                Reason.SIGNATURE_INVALID,
                f"{signature} does not fit what {folder} holds: {detail}. Copy the whole folder again, or publish it again",
            ) from error


def derive_key(secret: str, purpose: str) -> ec.EllipticCurvePrivateKey:
    """The ECDSA P-256 key of a purpose, which follows from a secret: equal for equal ones, and telling of neither.

    By HKDF (RFC 5869) with 16 bytes more than the order has, so that no private value is likelier than another
    (FIPS 186-5, A.2.1).
    """
    material = HKDF(hashes.SHA256(), 48, salt=None, info=f"penstock.dev/{purpose}".encode()).derive(secret.encode())
    return ec.derive_private_key(int.from_bytes(material) % (_P256_ORDER - 1) + 1, ec.SECP256R1())


def pem_of(key: ec.EllipticCurvePrivateKey) -> tuple[str, str]:
    """A private key and its public key, each in PEM."""
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), _pem(key.public_key())


def sign_statement(statement: Statement, private: Path) -> bytes:
    """A file of a run's folder, which says what the statement says.

    Raises:
        Invalid: the key cannot be used.
    """
    text = statement.model_dump_json()
    signature = _load_private_key(private).sign(signed_bytes(text), ec.ECDSA(hashes.SHA256()))
    signed = SignedStatement(statement=text, signature=base64.b64encode(signature).decode())
    return signed.model_dump_json().encode()


def verify_statement(body: bytes, trusted: Sequence[str]) -> tuple[Statement, str]:
    """What such a file says, and which of the trusted keys signed it.

    Args:
        body: of the file.
        trusted: public keys in PEM.

    Raises:
        Invalid: SignatureMissing, SignatureInvalid or KeyNotTrusted.
    """
    try:
        signed = SignedStatement.model_validate_json(body)
        signature = base64.b64decode(signed.signature, validate=True)
    except (ValidationError, ValueError) as error:
        raise Invalid(
            Reason.SIGNATURE_MISSING, "it is not signed, as what a search of this release leaves is"
        ) from error
    for pem in trusted:
        key = serialization.load_pem_public_key(pem.encode())
        if isinstance(key, ec.EllipticCurvePublicKey):
            with contextlib.suppress(InvalidSignature):
                key.verify(signature, signed_bytes(signed.statement), ec.ECDSA(hashes.SHA256()))
                return _statement(signed.statement), pem
    raise Invalid(Reason.KEY_NOT_TRUSTED, "its signature is not by the key of this run")


def _statement(text: str) -> Statement:
    try:
        return Statement.model_validate_json(text)
    except ValidationError as error:
        raise Invalid(Reason.SIGNATURE_INVALID, f"what is signed is no statement of a run: {error}") from error


def _load_private_key(file: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise Invalid(
            Reason.INVALID_SPEC,
            f"the signing key {file} cannot be used: {error}; give an unencrypted ECDSA P-256 private key in PEM",
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Invalid(Reason.INVALID_SPEC, f"the signing key {file} is not an ECDSA P-256 key: make one of that kind")
    return key


def _signer(signature: Path, trusted: Sequence[str]) -> str:
    """The trusted key that the signature names, by the SHA-256 of its PEM."""
    try:
        bundle: Any = json.loads(signature.read_bytes())
        hint = bundle["verificationMaterial"]["publicKey"]["hint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Invalid(
            Reason.SIGNATURE_INVALID,
            f"{signature} is not a signature bundle with an elliptic key: {error!r}. Publish the model again",
        ) from error
    known = {hashlib.sha256(pem.encode()).hexdigest(): pem for pem in map(_normalize, trusted)}
    if hint not in known:
        has = f"{len(known)} other keys are trusted" if known else "no key is trusted here"
        raise Invalid(
            Reason.KEY_NOT_TRUSTED,
            f"{signature} is by the key with SHA-256 {hint}, but {has}: "
            "add that public key to the trusted keys if you know whose it is, or publish the model with your own",
        )
    return known[hint]


def _normalize(pem: str) -> str:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except ValueError as error:
        raise Invalid(Reason.INVALID_SPEC, f"a trusted key is no public key in PEM: {error}") from error
    return _pem(key)


def _pem(key: Any) -> str:
    body: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return body.decode()
