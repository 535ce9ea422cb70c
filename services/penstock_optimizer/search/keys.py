"""What a search is known by. Equal keys mean that what was tried before need not be tried again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from penstock.api.optimization import OptimizationProfileSpec
from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import canonical_json

OPTIMIZER_VERSION: Final = 2
"""Goes up with every change of the optimizer that makes former trials worth nothing."""

_DIGITS: Final = 32


def search_key(
    *,
    source_digest: str,
    data_digest: str,
    spec: OptimizationProfileSpec,
    settings: Mapping[str, str | int | float | bool | None],
    library_versions: Mapping[str, str],
    hardware: Hardware,
) -> str:
    """Thirty-two hex digits, equal for searches that would try the same on the same.

    Args:
        source_digest: of the prepared source.
        data_digest: of the prepared samples.
        spec: the profile.
        settings: of the request, as far as they change what is tried or decided: seed, threads, bounds, budget.
        library_versions: of what builds, runs and measures.
        hardware: the machine's fingerprint.
    """
    content = {
        "optimizer": OPTIMIZER_VERSION,
        "source": source_digest,
        "data": data_digest,
        "spec": spec.model_dump(mode="json"),
        "settings": dict(settings),
        "libraries": dict(library_versions),
        "hardware": hardware.model_dump(mode="json"),
    }
    return digest_of(content)


def trial_key(search: str, name: str) -> str:
    """Of one trial of a search, by the trial's name, such as `build-0123456789abcdef`."""
    return digest_of({"search": search, "trial": name})


def digest_of(content: object) -> str:
    """Thirty-two hex digits of a JSON value."""
    return hashlib.sha256(canonical_json(content)).hexdigest()[:_DIGITS]
