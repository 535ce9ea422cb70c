"""Where API keys are, and which deployments look again when one changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from penstock.api.access import APIKey
from penstock.api.reading import read
from penstock.errors import Invalid
from penstock_operator.kinds import OURS
from penstock_operator.runtime.aspects import Aspects
from penstock_operator.runtime.cluster import Cluster, Key, Manifest, key_of

log = logging.getLogger(__name__)
API_KEY = OURS["APIKey"]


class KeyDirectory:
    """Keys by namespace.

    Args:
        cluster: where the objects are.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._parsed: dict[Key, tuple[str, APIKey | None]] = {}
        """What an object's version was parsed to: a namespace's keys are read for each of its deployments."""

    def keys(self, namespace: str) -> tuple[APIKey, ...]:
        """All of a namespace, without those that are not valid. Raises `Unavailable` where the API does not answer."""
        manifests = {key_of(each): each for each in self._cluster.list(API_KEY, namespace).items}
        for gone in [key for key in tuple(self._parsed) if key.namespace == namespace and key not in manifests]:
            self._parsed.pop(gone, None)
        return tuple(parsed for key, each in manifests.items() if (parsed := self._parse(key, each)) is not None)

    def _parse(self, key: Key, manifest: Manifest) -> APIKey | None:
        version = manifest["metadata"].get("resourceVersion", "")
        known = self._parsed.get(key)
        if known is not None and known[0] == version:
            return known[1]
        parsed = None
        try:
            parsed = read(APIKey, manifest)
        except Invalid as error:
            # It opens nothing; the namespace's other keys go on.
            log.warning("%s", error.message)
        self._parsed[key] = version, parsed
        return parsed


class DeploymentsOfKey:
    """The deployments of a key's namespace, where the key came, went, or has another spec.

    Args:
        deployments: a namespace's.
        there: whether a key is still there.
    """

    def __init__(self, deployments: Callable[[str], Iterable[Manifest]], there: Callable[[Key], bool]) -> None:
        self._deployments = deployments
        self._aspects = Aspects(there)

    def __call__(self, manifest: Manifest) -> Iterable[Key]:
        """Keys of deployments."""
        key, metadata = key_of(manifest), manifest["metadata"]
        aspect = metadata.get("uid"), metadata.get("generation"), metadata.get("deletionTimestamp")
        if not self._aspects.changed(manifest, aspect):
            return ()
        return [key_of(each) for each in self._deployments(key.namespace)]
