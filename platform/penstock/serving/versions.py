"""Model folders with versions below them: `churn/1/model.onnx`, `churn/2/model.onnx`, as other servers have them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.models import Frozen
from penstock.serving.manifest import MANIFEST_NAME
from penstock.wording import join_some

_NAMED: Final = 8


class Wanted(Frozen):
    """What is looked for in a folder."""

    version: str = "1"
    """Name of the folder in it, where it holds no model itself. Empty: none was named."""
    suffixes: tuple[str, ...]
    """What a file that is a model ends in, such as `.onnx`; the first one is named in messages."""


def version_folder(files: Iterable[str], folders: Iterable[str], wanted: Wanted, where: str) -> str | None:
    """The folder below a model's folder that is the model; None where the model is in the folder itself, or nowhere.

    Args:
        files: names of the files in the folder itself.
        folders: names of the folders in it.
        wanted: what is looked for.
        where: the folder, for the message.

    Raises:
        Invalid: ModelNotFound; there are only folders, and none is of that version.
    """
    if any(name == MANIFEST_NAME or PurePosixPath(name).suffix in wanted.suffixes for name in files):
        return None
    below = sorted((name for name in folders if not name.startswith(".")), key=lambda name: (name.zfill(32), name))
    if wanted.version in below:
        return wanted.version
    if not below:
        return None
    asked = f", and no folder of version {wanted.version!r}" if wanted.version else ""
    raise Invalid(
        Reason.MODEL_NOT_FOUND,
        f"{where} has no {MANIFEST_NAME} and no {wanted.suffixes[0]} file{asked}: it has the folders {join_some(below, _NAMED)}. Name one of them as the model's version, or in its address",
    )
