"""Owners of objects, as manifests have them."""

from __future__ import annotations

from penstock import names
from penstock.api.meta import Manifest, ObjectMeta


def owner_reference(owner: Manifest) -> Manifest:
    """See `penstock.names.owner_reference`."""
    return names.owner_reference(owner["apiVersion"], owner["kind"], ObjectMeta.model_validate(owner["metadata"]))
