"""Which objects the words after `get` and `delete` mean, read as `kubectl` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.api.kinds import KINDS
from penstock.errors import Invalid
from penstock_cli.objects.resources import find_kind
from penstock_operator.runtime.cluster import ResourceKind

_ALL = "all"


@dataclass(frozen=True, slots=True)
class Selection:
    """Objects of one kind."""

    kind: ResourceKind
    names: tuple[str, ...] = ()
    """Empty: every object of the kind."""


def parse_selection(words: Sequence[str]) -> list[Selection]:
    """What `KIND`, `KIND,KIND`, `KIND NAME…`, `KIND/NAME…` or `all` (Penstock's own kinds) mean.

    Raises:
        Invalid: a kind is not known, a name is missing, or the two forms are mixed.
    """
    if any("/" in word for word in words):
        return _parse_slashed(words)
    first, *names = words
    kinds = [*KINDS] if first.lower() == _ALL else first.split(",")
    if names and len(kinds) > 1:
        raise Invalid("InvalidSelection", f"a name belongs to one kind: write KIND NAME or KIND/NAME, not {first!r}")
    return [Selection(find_kind(kind), tuple(names)) for kind in kinds]


def _parse_slashed(words: Sequence[str]) -> list[Selection]:
    """`KIND/NAME…`, grouped by kind in the order in which kinds come first."""
    found: dict[ResourceKind, tuple[str, ...]] = {}
    for word in words:
        kind, slash, name = word.partition("/")
        if not slash or not name or "/" in name:
            raise Invalid("InvalidSelection", f"{word!r} is not KIND/NAME, as the other words are")
        wanted = find_kind(kind)
        found[wanted] = (*found.get(wanted, ()), name)
    return [Selection(kind, names) for kind, names in found.items()]
