"""What models that sleep take and give: each replica's metadata, kept from when it registered, so that a look wakes none."""

from __future__ import annotations

from typing import Final

from pydantic_core import from_json

from penstock.errors import Invalid
from penstock.routing.table import ModelKey

NAMESPACE_BYTES: Final = 1 << 20
TOTAL_BYTES: Final = 16 << 20
"""Of all namespaces. Past either, those that came first of the namespace with the most go first."""
_MOST_VERSIONS: Final = 8


class Descriptions:
    """Metadata by model and version, within bounds. What goes is missed by those alone who look at a model without replicas."""

    def __init__(self, namespace_bytes: int = NAMESPACE_BYTES, total_bytes: int = TOTAL_BYTES) -> None:
        self._namespace_bytes = namespace_bytes
        self._total_bytes = total_bytes
        self._kept: dict[str, dict[str, dict[str, bytes]]] = {}
        """By namespace, model and version; what was told last stands last."""
        self._bytes: dict[str, int] = {}

    def keep(self, key: ModelKey, version: str, text: str) -> None:
        """Keep a replica's metadata in place of what was there.

        Raises:
            Invalid: it is no JSON object.
        """
        try:
            valid = isinstance(from_json(text), dict)
        except ValueError:
            valid = False
        if not valid:
            raise Invalid("InvalidLease", "a replica's metadata is a JSON object")
        namespace, model = key
        models = self._kept.setdefault(namespace, {})
        versions = models.pop(model, {})
        told = versions.pop(version, b"")
        models[model] = versions
        versions[version] = text.encode()
        self._count(namespace, len(versions[version]) - len(told))
        if len(versions) > _MOST_VERSIONS:
            self._count(namespace, -len(versions.pop(next(iter(versions)))))
        while self._bytes.get(namespace, 0) > self._namespace_bytes:
            self._drop_first(namespace)
        while sum(self._bytes.values()) > self._total_bytes:
            self._drop_first(max(self._bytes, key=self._bytes.__getitem__))

    def find(self, key: ModelKey, version: str | None) -> bytes | None:
        """A version's metadata, or that of the version told last."""
        versions = self._kept.get(key[0], {}).get(key[1], {})
        return versions.get(version) if version is not None else next(reversed(versions.values()), None)

    def find_version(self, key: ModelKey) -> str | None:
        """The version that was told of last."""
        return next(reversed(self._kept.get(key[0], {}).get(key[1], {})), None)

    def forget(self, key: ModelKey) -> None:
        """The model is gone."""
        models = self._kept.get(key[0], {})
        for text in models.pop(key[1], {}).values():
            self._count(key[0], -len(text))
        if not models:
            self._kept.pop(key[0], None)

    def _count(self, namespace: str, size: int) -> None:
        left = self._bytes.get(namespace, 0) + size
        if left:
            self._bytes[namespace] = left
        else:
            self._bytes.pop(namespace, None)

    def _drop_first(self, namespace: str) -> None:
        self.forget((namespace, next(iter(self._kept[namespace]))))
