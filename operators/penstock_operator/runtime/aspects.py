"""Whether what matters of an object changed, so that others need not look at each of its changes."""

from __future__ import annotations

from collections.abc import Callable

from penstock_operator.runtime.cluster import Key, Manifest, key_of


class Aspects:
    """What matters of each object that is there, as it was last seen.

    It only ever spares work: a restart forgets it, and then each object counts as changed once.

    Args:
        there: whether an object is still there.
    """

    def __init__(self, there: Callable[[Key], bool]) -> None:
        self._there = there
        self._seen: dict[Key, object] = {}

    def changed(self, manifest: Manifest, aspect: object) -> bool:
        """Whether it did since the object was last seen. That it went is a change too."""
        key = key_of(manifest)
        if not self._there(key):
            return self._seen.pop(key, None) is not None
        before = self._seen.get(key)
        self._seen[key] = aspect
        return aspect != before
