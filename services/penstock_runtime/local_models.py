"""Models that need not be fetched, since they lie on this machine or on a claim."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.mounts import CLAIMS_ROOT, CLAIMS_VARIABLE
from penstock_runtime.filesystems import file_uri, local_path


def find_local(uri: str, environment: Mapping[str, str]) -> Path | None:
    """Where a model lies that need not be fetched: on this machine (`file://`), or on a claim (`pvc://`); else None.

    Raises:
        Invalid: ModelNotFound, or UnsupportedStorage for a URI that names no place.
    """
    uri = file_uri(uri)
    if urlsplit(uri).scheme == "pvc":
        return _find_on_claim(uri, environment)
    path = local_path(uri)
    if path is not None and not path.exists():
        raise Invalid(
            Reason.MODEL_NOT_FOUND,
            f"there is nothing at {path} on this node: check storageUri and that the node has this folder mounted",
        )
    return path


def _find_on_claim(uri: str, environment: Mapping[str, str]) -> Path:
    parts = urlsplit(uri)
    name, inside = parts.netloc, unquote(parts.path).strip("/")
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name):
        raise Invalid(
            Reason.UNSUPPORTED_STORAGE,
            f"{uri!r} names no claim: write pvc://CLAIM, or pvc://CLAIM/path, such as pvc://models/digits/1",
        )
    claim = Path(environment.get(CLAIMS_VARIABLE) or CLAIMS_ROOT) / name
    if not claim.is_dir():
        raise Invalid(
            Reason.MODEL_NOT_FOUND,
            f"the PersistentVolumeClaim {name!r} is not mounted on this node ({claim}): list it in the pool's "
            "managed.modelClaims",
        )
    path = claim / inside
    if not path.resolve().is_relative_to(claim.resolve()):
        raise Invalid(
            Reason.MODEL_NOT_FOUND, f"{uri} leads out of its claim: name a path in it, with no link out of it"
        )
    if not path.exists():
        raise Invalid(Reason.MODEL_NOT_FOUND, f"there is nothing at {inside} of the claim {name!r}: check storageUri")
    return path
