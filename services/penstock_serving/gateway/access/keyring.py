"""Which API keys open which models: an index that follows the routes as they are declared. Pure.

Anyone may send any key to any model's name, so what a key opens must be found without a walk over keys or models; and a
namespace may have many of both, so a set of keys is kept once, however many of its models name it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from penstock.routing.access import (
    Admitted,
    Authenticity,
    Grant,
    Lock,
    Locks,
    ModelKey,
    RouteAccess,
    RouteKey,
    Uses,
    key_caller,
)
from penstock.routing.keys import KeySet
from penstock.routing.leases import Route

_NO_USES: Final[Mapping[str, RouteKey]] = MappingProxyType({})
_OPEN: Final = Lock(Authenticity.ANYONE, 0)


class Keyring:
    """The keys of all namespaces, and what a data path must hold by them. Knows no clock: each question brings its time."""

    def __init__(self) -> None:
        self._routes: Mapping[ModelKey, Route] = {}
        self._keys: Mapping[str, KeySet] = {}
        self._rings: dict[str, _Ring] = {}

    def follow(self, routes: Mapping[ModelKey, Route], keys: Mapping[str, KeySet] = MappingProxyType({})) -> None:
        """Take over what is declared.

        Args:
            routes: of a table, where they are another mapping after every change; this very one again costs nothing.
            keys: of namespaces, as they were told for themselves; likewise.
        """
        if keys is not self._keys:
            before_keys, self._keys = self._keys, keys
            for namespace in before_keys.keys() | keys.keys():
                if before_keys.get(namespace) is not keys.get(namespace):
                    self._ring(namespace).namespace_keys = keys.get(namespace, _UNTOLD)
                    self._tidy(namespace)
        if routes is self._routes:
            return
        before, self._routes = self._routes, routes
        for key in before.keys() - routes.keys():
            self._replace(key, None)
        for key, route in routes.items():
            known = before.get(key)
            if known is None or (known.access is not route.access and known.access != route.access):
                self._replace(key, route.access)

    def uses(self, namespace: str, digest: str) -> Mapping[str, RouteKey]:
        """What the namespace's guarded models say of a key, by model; one that does not name it is not opened by it.

        Args:
            namespace: where the key is shown.
            digest: the key's SHA-256.
        """
        ring = self._rings.get(namespace)
        return _NO_USES if ring is None else ring.uses(digest)

    def locks(
        self,
        models: Iterable[ModelKey],
        admitted: Mapping[tuple[str, str, str], Admitted],
        now: float,
        *,
        default_required: bool,
    ) -> Locks:
        """What a data path must hold.

        Args:
            models: every model that is known, also those of which nothing is declared.
            admitted: tokens that were verified, by namespace, model and SHA-256.
            now: the present; what has expired is left out.
            default_required: whether models of which nothing is declared are closed.
        """
        guards = {key: self._lock(key, default_required=default_required) for key in models}
        namespaces: dict[tuple[str, str], Grant] = {}
        single: dict[tuple[str, str, str], Grant] = {}
        for namespace, ring in self._rings.items():
            grants = ring.grants()
            for digest, grant in grants.keys.items():
                if grant.until > now:
                    namespaces[namespace, digest] = grant
            for (model, digest), grant in grants.single.items():
                if grant.until > now:
                    single[namespace, model, digest] = grant
        for (namespace, model, digest), token in admitted.items():
            access = self._access((namespace, model))
            if access is not None and access.required and access.issuers == token.issuers and token.until > now:
                single[namespace, model, digest] = Grant(token.caller, 0, token.until, everywhere=False)
        return Locks({key: lock for key, lock in guards.items() if lock != _OPEN}, namespaces, single)

    def is_decided(self, key: ModelKey) -> bool:
        """Whether it is known who may ask a model: its namespace's keys were told, where they open it."""
        access = self._access(key)
        return access is None or not (access.required and access.shared) or self._knows_keys(key[0])

    def _knows_keys(self, namespace: str) -> bool:
        return bool(self._keys.get(namespace, _UNTOLD).digest)

    def _access(self, key: ModelKey) -> RouteAccess | None:
        route = self._routes.get(key)
        return None if route is None else route.access

    def _lock(self, key: ModelKey, *, default_required: bool) -> Lock:
        if not self.is_decided(key):
            return Lock(Authenticity.UNDECIDED, 0)
        return _lock(self._access(key), default_required=default_required)

    def _ring(self, namespace: str) -> _Ring:
        return self._rings.setdefault(namespace, _Ring(self._keys.get(namespace, _UNTOLD)))

    def _replace(self, key: ModelKey, access: RouteAccess | None) -> None:
        namespace, model = key
        self._ring(namespace).replace(model, access if access is not None and access.required else None)
        self._tidy(namespace)

    def _tidy(self, namespace: str) -> None:
        if not self._rings[namespace].guarded:
            del self._rings[namespace]


_UNTOLD: Final = KeySet()


@dataclass(frozen=True, slots=True)
class _Grants:
    """What one namespace's keys are worth, those that have ended too."""

    keys: Mapping[str, Grant]
    single: Mapping[tuple[str, str], Grant]
    """By model and SHA-256, of those that do not open all."""


@dataclass(slots=True)
class _Set:
    """Keys that routes name, kept once for all routes that name the same ones."""

    keys: dict[str, RouteKey]
    models: set[str] = field(default_factory=set)


class _Ring:
    """One namespace's keys."""

    def __init__(self, told: KeySet) -> None:
        self.guarded: dict[str, RouteAccess] = {}
        """What is declared of each model that asks for a key."""
        self._namespace_keys = told
        self._sets: dict[tuple[RouteKey, ...], _Set] = {}
        self._set_of: dict[str, _Set] = {}
        """By model."""
        self._grants: _Grants | None = None

    @property
    def namespace_keys(self) -> KeySet:
        """The namespace's keys, which open the models that are declared to be opened by them."""
        return self._namespace_keys

    @namespace_keys.setter
    def namespace_keys(self, told: KeySet) -> None:
        self._namespace_keys = told
        self._grants = None

    def replace(self, model: str, access: RouteAccess | None) -> None:
        """Take over what is declared of a model; None: it asks for no key any more."""
        self._grants = None
        before = self.guarded.pop(model, None)
        if before is not None:
            known = self._set_of.pop(model)
            known.models.discard(model)
            if not known.models:
                del self._sets[before.keys]
        if access is not None:
            self.guarded[model] = access
            known = self._sets.get(access.keys) or _Set({key.sha256: key for key in access.keys})
            self._sets[access.keys] = self._set_of[model] = known
            known.models.add(model)

    def uses(self, digest: str) -> Mapping[str, RouteKey]:
        """What the models say of a key."""
        told = self._namespace_keys.keys.get(digest)
        named = [found for each in self._sets.values() if (found := each.keys.get(digest)) is not None]
        if told is None and not named:
            return _NO_USES
        opens = told is not None and (
            any(access.shared for access in self.guarded.values())
            if not told.deployments
            else any(self._shares(model) for model in told.deployments)
        )
        words = [*named, told] if told is not None and opens else named
        return Uses(lambda model: self._word(model, digest), self.guarded, words) if words else _NO_USES

    def _shares(self, model: str) -> bool:
        access = self.guarded.get(model)
        return access is not None and access.shared

    def _word(self, model: str, digest: str) -> RouteKey | None:
        access = self.guarded.get(model)
        if access is None:
            return None
        named = self._set_of[model].keys.get(digest)
        told = self._namespace_keys.keys.get(digest) if access.shared else None
        return named if named is not None or told is None or not told.opens(model) else told

    def grants(self) -> _Grants:
        """What each key is worth. Found anew after a change, in as many steps as there are keys and different sets."""
        if self._grants is None:
            self._grants = self._compute_grants()
        return self._grants

    def _compute_grants(self) -> _Grants:
        words: dict[str, list[RouteKey]] = {}
        opened: dict[str, list[Collection[str]]] = {}
        for each in self._sets.values():
            for digest, key in each.keys.items():
                words.setdefault(digest, []).append(key)
                opened.setdefault(digest, []).append(each.models)
        sharing = {model for model, access in self.guarded.items() if access.shared}
        for digest, told in self._namespace_keys.keys.items():
            opens = sharing.intersection(told.deployments) if told.deployments else sharing
            if opens:
                words.setdefault(digest, []).append(told)
                opened.setdefault(digest, []).append(opens)
        keys: dict[str, Grant] = {}
        single: dict[tuple[str, str], Grant] = {}
        for digest, said in words.items():
            lists = opened[digest]
            models = lists[0] if len(lists) == 1 else set().union(*lists)
            keys[digest] = _grant(said, everywhere=len(models) == len(self.guarded))
            if not keys[digest].everywhere:
                single.update(((model, digest), keys[digest]) for model in models)
        return _Grants(keys, single)


def _grant(words: Collection[RouteKey], *, everywhere: bool) -> Grant:
    """What a key is worth at the models that name it. Where they differ on it for a moment, the stricter word counts."""
    limit = min((each.requests_per_second for each in words if each.requests_per_second is not None), default=0)
    until = min(each.expires_at for each in words)
    return Grant(key_caller(min(each.name for each in words)), limit, until, everywhere)


def _lock(access: RouteAccess | None, *, default_required: bool) -> Lock:
    if access is None:
        return Lock(Authenticity.UNDECIDED, 0) if default_required else _OPEN
    limit = access.requests_per_second or 0
    if not access.required:
        return Lock(Authenticity.ANYONE, limit)
    return Lock(Authenticity.KEY_OR_JWT if access.issuers else Authenticity.KEY, limit)
