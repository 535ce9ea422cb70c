"""Signatures of model folders, in sigstore's model-signing format, with a local ECDSA P-256 key: no network is used.

`model.sig` in the folder covers every other file in it, and verification fails for files that were changed, removed or
added. The library takes more than half a second to import (it brings sigstore), so it is imported where it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.manifest import SIGNATURE_NAME

__all__ = ["SIGNATURE_NAME", "make_keys", "public_key", "sign", "verify"]


def make_keys(private: Path) -> str:
    """Write a new private key, readable by its owner only, unless there is one. Returns the public key in PEM.

    Safe for two processes at once: both get the key of the one that came first.

    Raises:
        Invalid: what is there is no such key.
    """
    if not private.exists():
        private.parent.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
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
    try:
        key = serialization.load_pem_private_key(private.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise Invalid(
            Reason.INVALID_SPEC,
            f"the signing key {private} cannot be used: {error}; give an unencrypted ECDSA P-256 private key in PEM",
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Invalid(
            Reason.INVALID_SPEC, f"the signing key {private} is not an ECDSA P-256 key: make one of that kind"
        )
    return _pem(key.public_key())


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
    known = {hashlib.sha256(pem.encode()).hexdigest(): pem for pem in map(_normalized, trusted)}
    if hint not in known:
        has = f"{len(known)} other keys are trusted" if known else "no key is trusted here"
        raise Invalid(
            Reason.KEY_NOT_TRUSTED,
            f"{signature} is by the key with SHA-256 {hint}, but {has}: "
            "add that public key to the trusted keys if you know whose it is, or publish the model with your own",
        )
    return known[hint]


def _normalized(pem: str) -> str:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except ValueError as error:
        raise Invalid(Reason.INVALID_SPEC, f"a trusted key is no public key in PEM: {error}") from error
    return _pem(key)


def _pem(key: Any) -> str:
    body: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return body.decode()
