"""What a search says of itself, and by whom it was said: the content of `progress.json` and `result.json`.

Who can write to the artifact store could put a verdict there. So it counts only with a signature by the run's own key,
which the driver of the search holds and no process that opens the model, and only for the Job that it was made in.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import Final

from penstock.api.optimization import OptimizationProfileSpec
from penstock.models import Frozen
from penstock.optimization.progress import Progress, RunIdentity, RunResult
from penstock.optimization.recipes import canonical_json

DOMAIN: Final = b"penstock.dev/run-statement/v1\n"
"""Precedes what is signed, so that a signature of anything else is none of a statement."""
MOST_BYTES: Final = 1 << 20
"""Of one file."""
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class Statement(Frozen):
    """What is signed."""

    identity: RunIdentity
    profile_digest: str
    """`sha256:` of the profile's spec."""
    progress: Progress | None = None
    result: RunResult | None = None


class SignedStatement(Frozen):
    """A file of a run's folder."""

    statement: str
    """A `Statement` as JSON, to the byte as it was signed."""
    signature: str
    """ECDSA P-256 with SHA-256 over `DOMAIN` and the statement in UTF-8, DER, in base64."""


def signed_bytes(statement: str) -> bytes:
    """What a signature covers."""
    return DOMAIN + statement.encode()


def digest_of_profile(profile: OptimizationProfileSpec) -> str:
    """`sha256:` of a profile's spec. Fields at their defaults are left out, so that a release that adds one gives the same."""
    said = profile.model_dump(mode="json", exclude_defaults=True)
    return f"sha256:{hashlib.sha256(canonical_json(said)).hexdigest()}"


def mismatch(statement: Statement, wanted: RunIdentity, profile_digest: str) -> str | None:
    """Why a statement is not about this Job; None where it is.

    Args:
        statement: whose signature was found good.
        wanted: of the Job.
        profile_digest: of what the Job was told to do.
    """
    said = statement.identity
    for what, has, needs in (
        ("namespace", said.namespace, wanted.namespace),
        ("run", said.run, wanted.run),
        ("Job", said.job, wanted.job),
        ("profile", statement.profile_digest, profile_digest),
    ):
        if has != needs:
            return f"it was signed for the {what} {has!r}, not {needs!r}"
    return None


def store_of(store: str, namespace: str) -> str:
    """The part of the artifact store that is a namespace's own, as a URI without a `/` at its end."""
    uri = PurePosixPath(store).as_uri() if store.startswith("/") else store
    return f"{uri.rstrip('/')}/{namespace}"


def lies_within(store: str, namespace: str, uri: str) -> bool:
    """Whether a URI is of a place in a namespace's own part of the store, in its plain form."""
    prefix = f"{store_of(store, namespace)}/"
    parts = uri.removeprefix(prefix).split("/")
    return uri.startswith(prefix) and all(_PART.fullmatch(part) for part in parts)
