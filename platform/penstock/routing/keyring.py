"""Which API keys open which models: an index that follows the routes as they are declared. Pure.

Anyone may send any key to any model's name, so what a key opens must be found without a walk over keys or models; and a
namespace may have many of both, so a change of one route must cost no more than that route's keys.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
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
    key_caller,
)
from penstock.routing.leases import Route

_NO_USES: Final[Mapping[str, RouteKey]] = MappingProxyType({})
_OPEN: Final = Lock(Authenticity.ANYONE, 0)
_Word = tuple[str, int, int | None]
"""What a route says of a key: its name, its end and its limit."""


class Keyring:
    """The keys of all namespaces, and what a data path must hold by them. Knows no clock: each question brings its time."""

    def __init__(self) -> None:
        self._routes: Mapping[ModelKey, Route] = {}
        self._rings: dict[str, _Ring] = {}

    def follow(self, routes: Mapping[ModelKey, Route]) -> None:
        """Take over the declared routes.

        Args:
            routes: of a table, where they are another mapping after every change; this very one again costs nothing.
        """
        if routes is self._routes:
            return
        before, self._routes = self._routes, routes
        for key in before.keys() - routes.keys():
            self._replace(key, None)
        for key, route in routes.items():
            known = before.get(key)
            if known is None or known.access is not route.access:
                self._replace(key, route.access)

    def uses(self, namespace: str, digest: str) -> Mapping[str, RouteKey]:
        """What the namespace's guarded models say of a key, by model; one that does not name it is not opened by it.

        Args:
            namespace: where the key is shown.
            digest: the key's SHA-256.
        """
        ring = self._rings.get(namespace)
        return _NO_USES if ring is None else ring.uses.get(digest, _NO_USES)

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
        guards = {key: _lock(self._access(key), default_required=default_required) for key in models}
        namespaces: dict[tuple[str, str], Grant] = {}
        single: dict[tuple[str, str, str], Grant] = {}
        for namespace, ring in self._rings.items():
            for digest, grant in ring.grants().items():
                if grant.until > now:
                    namespaces[namespace, digest] = grant
                    if not grant.everywhere:
                        single.update(((namespace, model, digest), grant) for model in ring.uses[digest])
        for (namespace, model, digest), token in admitted.items():
            access = self._access((namespace, model))
            if access is not None and access.required and access.issuers == token.issuers and token.until > now:
                single[namespace, model, digest] = Grant(token.caller, 0, token.until, everywhere=False)
        return Locks({key: lock for key, lock in guards.items() if lock != _OPEN}, namespaces, single)

    def _access(self, key: ModelKey) -> RouteAccess | None:
        route = self._routes.get(key)
        return None if route is None else route.access

    def _replace(self, key: ModelKey, access: RouteAccess | None) -> None:
        namespace, model = key
        ring = self._rings.setdefault(namespace, _Ring())
        ring.replace(model, access if access is not None and access.required else None)
        if not ring.guarded:
            del self._rings[namespace]


class _Ring:
    """One namespace's keys."""

    def __init__(self) -> None:
        self.guarded: dict[str, RouteAccess] = {}
        """What is declared of each model that asks for a key."""
        self.uses: dict[str, dict[str, RouteKey]] = {}
        """By SHA-256 and model."""
        self._words: dict[str, dict[_Word, int]] = {}
        """What models say of each key, and how many say so; all the same but for moments."""
        self._grants: dict[str, Grant] = {}
        self._stale: set[str] = set()
        """Keys whose grants are to be made anew."""

    def replace(self, model: str, access: RouteAccess | None) -> None:
        """Take over what is declared of a model; None: it asks for no key any more."""
        before = self.guarded.pop(model, None)
        if access is not None:
            self.guarded[model] = access
        for digest, key in _by_digest(before).items():
            self._stale.add(digest)
            del self.uses[digest][model]
            _count(self._words[digest], key, -1)
            if not self.uses[digest]:
                del self.uses[digest], self._words[digest]
        for digest, key in _by_digest(access).items():
            self._stale.add(digest)
            self.uses.setdefault(digest, {})[model] = key
            _count(self._words.setdefault(digest, {}), key, 1)

    def grants(self) -> Mapping[str, Grant]:
        """What each key is worth, those that have ended too."""
        for digest in self._stale:
            if digest in self._words:
                self._grants[digest] = _grant(self._words[digest])
            else:
                self._grants.pop(digest, None)
        self._stale.clear()
        for digest, grant in self._grants.items():
            # Another model that asks for a key changes this of all keys, and nothing else.
            everywhere = len(self.uses[digest]) == len(self.guarded)
            if grant.everywhere != everywhere:
                self._grants[digest] = replace(grant, everywhere=everywhere)
        return self._grants


def _by_digest(access: RouteAccess | None) -> dict[str, RouteKey]:
    return {} if access is None else {key.sha256: key for key in access.keys}


def _count(words: dict[_Word, int], key: RouteKey, more: int) -> None:
    word = key.name, key.expires_at, key.requests_per_second
    words[word] = words.get(word, 0) + more
    if not words[word]:
        del words[word]


def _grant(words: Collection[_Word]) -> Grant:
    """What a key is worth at the models that name it. Where they differ on it for a moment, the stricter word counts."""
    limit = min((each for _, _, each in words if each is not None), default=0)
    return Grant(
        key_caller(min(name for name, _, _ in words)), limit, min(until for _, until, _ in words), everywhere=False
    )


def _lock(access: RouteAccess | None, *, default_required: bool) -> Lock:
    if access is None:
        return Lock(Authenticity.UNDECIDED, 0) if default_required else _OPEN
    limit = access.requests_per_second or 0
    if not access.required:
        return Lock(Authenticity.ANYONE, limit)
    return Lock(Authenticity.KEY_OR_JWT if access.issuers else Authenticity.KEY, limit)
