"""Penstock's own kinds as the API serves them. A further kind is told in `penstock.api.kinds`, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.api import GROUP, VERSION
from penstock.api.kinds import KINDS
from penstock_operator.runtime.cluster import ResourceKind

OURS: Final[Mapping[str, ResourceKind]] = {
    name: ResourceKind(
        GROUP, VERSION, name, kind.plural, namespaced=kind.namespaced, has_status=kind.status is not None
    )
    for name, kind in KINDS.items()
}
"""By name."""
