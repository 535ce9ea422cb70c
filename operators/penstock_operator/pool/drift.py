"""What of an object is not as it was applied, since another hand changed it; and whether to put it right.

Compared is what we say with what is there. What others add (defaults of the API, a platform's labels, numbers that Ray's
autoscaler writes) is theirs; where we say a list, it is ours as a whole, as server-side apply has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from penstock.api.meta import Manifest
from penstock.api.quantity import canonical_quantity
from penstock.errors import Invalid
from penstock.wording import join_some
from penstock_operator.pool.names import PUT_RIGHT, digest

AGAIN_SECONDS: Final = 600.0
"""One that changes the same thing back is let be for so long: two controllers must not write in turn without end."""
_NAMED: Final = 3
_LONGEST: Final = 80
_OF_AUTOSCALER: Final = ("replicas", "scaleStrategy")
"""Of a worker group."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One value that is not what we say."""

    path: str
    found: Any
    wanted: Any

    def __str__(self) -> str:
        return f"{self.path} is {_shorten(self.found)}, not {_shorten(self.wanted)}"


def differences(wanted: Any, found: Any, path: str) -> tuple[Drift, ...]:
    """Where `found` is not what `wanted` says. Empty values are as good as none, and spellings of a quantity are alike."""
    return tuple(_differences(wanted, found, path))


def changed_ray_cluster(wanted: Manifest, found: Mapping[str, Any]) -> tuple[Drift, ...]:
    """The same of a RayCluster's spec, without what Ray's autoscaler writes."""
    return differences(_without_counts(wanted), _without_counts(found), "spec")


def may_put_right(annotations: Mapping[str, str], changes: Sequence[Drift], now: float) -> bool:
    """Whether to apply it again: not where that was done a moment ago and the same came back."""
    before, _, at = annotations.get(PUT_RIGHT, "").partition("@")
    return before != _digest(changes) or not at.isdecimal() or now - int(at) >= AGAIN_SECONDS


def with_mark(manifest: Manifest, changes: Sequence[Drift], now: float) -> Manifest:
    """What to apply, with the annotation by which the next look knows what was put right, and when."""
    metadata = manifest["metadata"]
    annotations = metadata.get("annotations", {}) | {PUT_RIGHT: f"{_digest(changes)}@{int(now)}"}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def describe(changes: Sequence[Drift]) -> str:
    """The first of them, for a sentence."""
    return join_some([str(each) for each in changes], _NAMED)


def _digest(changes: Sequence[Drift]) -> str:
    return digest({each.path: each.found for each in changes})


def _differences(wanted: Any, found: Any, path: str) -> Iterator[Drift]:
    if isinstance(wanted, Mapping) and isinstance(found or {}, Mapping):
        for name, value in wanted.items():
            yield from _differences(value, (found or {}).get(name), f"{path}.{name}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (ours, theirs) in enumerate(zip(wanted, found, strict=True)):
            yield from _differences(ours, theirs, f"{path}[{_name_of(ours, index)}]")
    elif not _is_alike(wanted, found):
        yield Drift(path, found, wanted)


def _is_alike(wanted: Any, found: Any) -> bool:
    if wanted == found or not (wanted or found):
        return True
    try:
        return not isinstance(wanted, bool) and canonical_quantity(str(wanted)) == canonical_quantity(str(found))
    except Invalid:
        return False


def _name_of(item: Any, index: int) -> str:
    """As a user knows an item of a list: by its name, where it has one."""
    named = item if isinstance(item, Mapping) else {}
    return str(named.get("groupName") or named.get("name") or index)


def _without_counts(spec: Mapping[str, Any]) -> Manifest:
    groups = [
        {name: value for name, value in each.items() if name not in _OF_AUTOSCALER}
        for each in spec.get("workerGroupSpecs") or ()
    ]
    return {**spec, "workerGroupSpecs": groups}


def _shorten(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
