"""Layers that were built before, in the user's cache directory, keyed by all that goes into them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from images.layers import Layer, write_layer
from images.python import Interpreter, find_interpreter
from images.sbom import Component, find_components

_KEPT_BYTES: Final = 2_000_000_000
"""Of each kind, older layers are kept while all of them together are no more than this."""

_KEY_LENGTH: Final = 16


@dataclass(frozen=True)
class BuiltLayer:
    """A layer, what it is, and the packages in it."""

    kind: str
    layer: Layer
    components: tuple[Component, ...]
    interpreter: Interpreter | None


class LayerCache:
    """A folder of layers. Of each kind the newest is kept, and older ones while they are small."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One build at a time: the second finds the layers of the first."""
        with (self._root / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def layer(self, kind: str, key: str, fill: Callable[[Path], None]) -> BuiltLayer:
        """The layer of this kind and key; `fill` puts its files into an empty folder where it is not there yet.

        Args:
            kind: a name for people, unique for what it is made of, fit for a file's name.
            key: all that decides the content.
            fill: makes the content.

        Raises:
            Invalid: the content holds what no image may.
        """
        folder = self._root / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:_KEY_LENGTH]}"
        if not (folder / "layer.json").exists():
            self._build(folder, fill)
            self._prune(kind, folder)
        os.utime(folder)
        return _load(kind, folder)

    def _build(self, folder: Path, fill: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory(dir=self._root, prefix=".building-") as scratch:
            tree, made = Path(scratch, "tree"), Path(scratch, "made")
            tree.mkdir()
            fill(tree)
            made.mkdir()
            layer = write_layer(tree, made / "layer.tar")
            document = {
                "digest": layer.digest,
                "size": layer.size,
                "components": [component.to_json() for component in find_components(tree)],
                "interpreter": _interpreter(tree),
            }
            (made / "layer.json").write_text(json.dumps(document))
            if folder.exists():
                shutil.rmtree(folder)
            made.rename(folder)

    def _prune(self, kind: str, newest: Path) -> None:
        length = len(f"{kind}-") + _KEY_LENGTH
        others = [path for path in self._root.glob(f"{kind}-*") if path != newest and len(path.name) == length]
        kept = 0
        for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
            kept += sum(file.stat().st_size for file in path.iterdir())
            if kept > _KEPT_BYTES:
                shutil.rmtree(path)


def _interpreter(tree: Path) -> str | None:
    return str(find_interpreter(tree).path) if any(tree.glob("usr/**/bin/python3.*")) else None


def _load(kind: str, folder: Path) -> BuiltLayer:
    document = json.loads((folder / "layer.json").read_text())
    path = document["interpreter"]
    return BuiltLayer(
        kind,
        Layer(folder / "layer.tar", document["digest"], document["size"]),
        tuple(Component.from_json(fields) for fields in document["components"]),
        Interpreter.from_path(path) if path else None,
    )
