"""A namespace's API keys as a gateway holds them: told once, changed by what changed, and known by a digest. Pure.

What a gateway is told of keys comes from the operator alone. Where it cannot take it, no key of the namespace opens anything
until it can: a key that was taken away must not go on because the word of it was lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field, TypeAdapter

from penstock.errors import Conflict, Invalid
from penstock.models import Frozen
from penstock.routing.access import MAX_KEYS, MAX_NAMED, NamespaceKey, RouteKey

MOST_KEY_BYTES: Final = 253 + 64 + 64 * 64 + 256
"""Of one key in a message: its name, its hash, 64 deployments, and the rest."""
MOST_PAIRS: Final = 16 * MAX_KEYS
"""Of keys and different sets of them that a namespace's routes may name."""
_KEYS: Final[TypeAdapter[list[NamespaceKey]]] = TypeAdapter(list[NamespaceKey])


class KeyChange(Frozen):
    """`PUT /v1/keys/{namespace}`: what became of a namespace's keys since what the gateway knows by `base`."""

    namespace: str
    base: str = ""
    """The digest of the keys that this changes. Empty: `added` is all there are."""
    added: Annotated[tuple[NamespaceKey, ...], Field(max_length=MAX_KEYS)] = ()
    """New ones, and those of which something else is said now."""
    removed: tuple[Annotated[str, Field(max_length=64)], ...] = ()
    """The hashes of those that are gone."""
    digest: str
    """Of all keys afterwards."""


class KeyDigests(Frozen):
    """`GET /v1/keys`: what a gateway holds of each namespace that it was told of."""

    digests: dict[str, str]


def _no_keys() -> MappingProxyType[str, NamespaceKey]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class KeySet:
    """One namespace's keys."""

    keys: Mapping[str, NamespaceKey] = field(default_factory=_no_keys)
    """By SHA-256."""
    digest: str = ""
    """Empty: what is to be known is not known, and no key counts."""

    @staticmethod
    def from_keys(keys: Iterable[NamespaceKey]) -> KeySet:
        """A set of these keys; of two with the same hash the first."""
        found: dict[str, NamespaceKey] = {}
        for key in keys:
            found.setdefault(key.sha256, key)
        return KeySet(MappingProxyType(found), digest_of(found.values()))

    def apply(self, change: KeyChange) -> KeySet:
        """The keys after a change.

        Raises:
            Conflict: it is a change of others than these; all are to be told anew.
            Invalid: these keys are not those that are meant, or too many.
        """
        if change.base and change.base != self.digest:
            raise Conflict("OtherKeys", f"the keys known here are those of digest '{self.digest}'")
        left = dict(self.keys) if change.base else {}
        for each in change.removed:
            left.pop(each, None)
        left |= {each.sha256: each for each in change.added}
        if len(left) > MAX_KEYS:
            raise Invalid("TooManyKeys", f"a namespace has {MAX_KEYS} keys at most")
        if sum(len(each.deployments) for each in left.values()) > MAX_NAMED:
            raise Invalid("TooManyKeys", f"a namespace's keys name {MAX_NAMED} deployments at most in all")
        found = KeySet.from_keys(left.values())
        if found.digest != change.digest:
            raise Invalid("OtherKeys", f"these are the keys of digest {found.digest}, not of {change.digest}")
        return found

    def change_to(self, wanted: KeySet, namespace: str, *, known: str) -> KeyChange:
        """What to tell a gateway so that it has the wanted keys.

        Args:
            wanted: the keys.
            namespace: whose.
            known: the digest of what the gateway holds; where that is not of these keys, all are told.
        """
        if not known or known != self.digest:
            return KeyChange(namespace=namespace, added=tuple(wanted.keys.values()), digest=wanted.digest)
        return KeyChange(
            namespace=namespace,
            base=known,
            added=tuple(each for digest, each in wanted.keys.items() if self.keys.get(digest) != each),
            removed=tuple(digest for digest in self.keys if digest not in wanted.keys),
            digest=wanted.digest,
        )


def digest_of(keys: Iterable[NamespaceKey]) -> str:
    """What a set of keys is known by, whatever their order."""
    return hashlib.sha256(_KEYS.dump_json(sorted(keys, key=lambda key: key.sha256))).hexdigest()


class KeyInterner:
    """Keys that routes name, each kept once however many routes name it. One namespace's; belongs to one thread.

    What is not named any more is forgotten when twice as much is kept as is named.
    """

    def __init__(self) -> None:
        self._keys: dict[RouteKey, RouteKey] = {}
        self._sets: dict[tuple[RouteKey, ...], tuple[RouteKey, ...]] = {}

    def __call__(self, keys: tuple[RouteKey, ...]) -> tuple[RouteKey, ...]:
        """The same keys, as they are kept."""
        found = self._sets.get(keys)
        if found is None:
            found = tuple(self._keys.setdefault(key, key) for key in keys)
            self._sets[found] = found
        return found

    def prune(self, named: Iterable[tuple[RouteKey, ...]]) -> None:
        """Forget what no route names.

        Args:
            named: the keys of every route.

        Raises:
            Invalid: the routes name too many different sets of keys.
        """
        sets = {id(each): each for each in named}
        pairs = sum(len(each) for each in sets.values())
        if pairs > MOST_PAIRS:
            raise Invalid(
                "TooManyKeys", f"the routes of a namespace name {MOST_PAIRS} keys at most, equal sets counted once"
            )
        if len(self._keys) > 2 * len({id(key) for each in sets.values() for key in each}) or len(self._sets) > 2 * len(
            sets
        ):
            self._sets = {each: each for each in sets.values()}
            self._keys = {key: key for each in sets.values() for key in each}
