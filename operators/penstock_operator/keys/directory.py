"""Where API keys are."""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

from penstock.api.access import APIKey
from penstock.api.reading import read
from penstock.errors import Invalid
from penstock_operator.kinds import API_KEY
from penstock_operator.runtime.cluster import Cluster, Key, Manifest, key_of
from penstock_operator.runtime.copies.cache import Recent

log = logging.getLogger(__name__)

_PARSED_SECONDS: Final = 600.0
"""What an object's version was parsed to is kept: a namespace's keys are read for each of its deployments."""


class KeyDirectory:
    """Keys by namespace.

    Args:
        cluster: where the objects are.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._parsed: Recent[tuple[Key, str], tuple[APIKey, ...]] = Recent(_PARSED_SECONDS)

    def keys(self, namespace: str) -> tuple[APIKey, ...]:
        """All of a namespace, without those that are not valid. Raises `Unavailable` where the API does not answer."""
        found: list[APIKey] = []
        for each in self._cluster.list(API_KEY, namespace).items:
            version = key_of(each), each["metadata"].get("resourceVersion", "")
            found += self._parsed.obtain(version, partial(_parse, each))
        return tuple(found)


def _parse(manifest: Manifest) -> tuple[APIKey, ...]:
    """The key, where it is one: else it opens nothing, and the namespace's other keys go on."""
    try:
        return (read(APIKey, manifest),)
    except Invalid as error:
        log.warning("%s", error.message)
        return ()
