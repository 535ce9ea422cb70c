"""Manifests that come with Penstock: beside the code in a checkout, in the package where it was installed from a wheel."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from penstock.errors import Unavailable

_BESIDE = Path(__file__).resolve().parents[2] / "manifests"


def sample(name: str) -> dict[str, Any]:
    """One of `manifests/samples`.

    Raises:
        Unavailable: it is neither in the package nor beside the code.
    """
    file = _folder("samples") / name
    if not file.is_file():
        raise Unavailable("ManifestMissing", f"{name} is neither in the package nor at {_BESIDE / 'samples'}")
    manifest: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return manifest


def profiles() -> tuple[dict[str, Any], ...]:
    """The shipped `ClusterOptimizationProfile`s, by file name.

    Raises:
        Unavailable: they are neither in the package nor beside the code.
    """
    files = sorted(
        (each for each in _folder("profiles").iterdir() if each.name.endswith(".yaml")), key=lambda f: f.name
    )
    texts = (each.read_text(encoding="utf-8") for each in files)
    return tuple(manifest for text in texts for manifest in yaml.safe_load_all(text) if manifest)


def _folder(name: str) -> Traversable:
    packaged = resources.files("penstock_cli") / name
    if packaged.is_dir():
        return packaged
    beside = _BESIDE / name
    if beside.is_dir():
        return beside
    raise Unavailable("ManifestMissing", f"the shipped {name} are neither in the package nor at {beside}")
