"""Tokens that were verified a moment ago: HAProxy lets them in by their hash, without asking again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from penstock.routing.access import Admitted
from penstock.routing.table import ModelKey

PER_NAMESPACE = 4096


class Admissions:
    """A bounded number for each namespace: one namespace's tokens never put out another's.

    Args:
        changed: called when HAProxy should hold something else.
        bound: tokens of a namespace at most; the oldest goes first.
    """

    def __init__(self, changed: Callable[[], None], bound: int = PER_NAMESPACE) -> None:
        self._changed = changed
        self._bound = bound
        self._tokens: dict[str, OrderedDict[tuple[str, str], Admitted]] = {}

    def admit(self, key: ModelKey, digest: str, token: Admitted) -> None:
        """Let a token in.

        Args:
            key: the model that it opens.
            digest: the token's SHA-256.
            token: what was found.
        """
        namespace, model = key
        tokens = self._tokens.setdefault(namespace, OrderedDict())
        tokens[model, digest] = token
        tokens.move_to_end((model, digest))
        while len(tokens) > self._bound:
            tokens.popitem(last=False)
        self._changed()

    def current(self, now: float) -> Mapping[tuple[str, str, str], Admitted]:
        """Those that hold still, by namespace, model and SHA-256; the others are forgotten.

        Args:
            now: epoch seconds.
        """
        for namespace, tokens in list(self._tokens.items()):
            for each in [each for each, token in tokens.items() if token.until <= now]:
                del tokens[each]
            if not tokens:
                del self._tokens[namespace]
        return {
            (namespace, model, digest): token
            for namespace, tokens in self._tokens.items()
            for (model, digest), token in tokens.items()
        }
