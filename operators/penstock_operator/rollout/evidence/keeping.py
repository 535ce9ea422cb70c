"""What is kept of evidence between looks, as text that a status holds.

Compressed JSON: with 16 replicas an arm whose answers fall into all buckets, some 20 KiB of the 32 that it may have. A text of
another release's form, or a broken one, is none: evidence then begins anew.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy as np

from penstock_operator.rollout.evidence.arrays import Array
from penstock_operator.rollout.evidence.seen import SeenReplica, SeenSamples, SeenShadow, SeenUnrun

MOST_CHARACTERS: Final = 32_768
_MOST_BYTES: Final = 1 << 20
"""Of what a text may unfold to."""
_DIGITS: Final = 9
"""Significant ones that are kept of each number."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KeptEvidence:
    """All that is kept."""

    form: str
    """Of the numbers, and what they were reckoned with: evidence under other settings is other evidence."""
    at: float
    """Of the last block's end."""
    expected_share: float
    """At the last look."""
    steady: bool
    """Whether it was the same during the whole last block."""
    replayed: bool
    candidate: dict[str, SeenReplica]
    baseline: dict[str, SeenReplica]
    shadowing: dict[str, SeenShadow]
    numbers: tuple[float, ...]
    """Of the ledger, flat."""


def flatten(value: Any) -> tuple[float, ...]:
    """All numbers in arrays of a dataclass and of those in it, in order; for one rollout."""
    numbers = np.concatenate([array.ravel() for array in _arrays(value)]).tolist()
    return tuple(float(f"{number:.{_DIGITS}g}") for number in numbers)


def unfold(template: T, numbers: tuple[float, ...]) -> T | None:
    """The dataclass whose numbers these are, of the template's shapes; None where they are not as many."""
    if len(numbers) != sum(array.size for array in _arrays(template)) or not np.isfinite(numbers).all():
        return None
    made: T = _fill(template, iter(numbers))
    return made


def write_kept(kept: KeptEvidence) -> str:
    """As text of at most `MOST_CHARACTERS`."""
    text = _pack(kept)
    while len(text) > MOST_CHARACTERS:
        kept = replace(
            kept,
            shadowing=_drop_quarter(kept.shadowing),
            candidate=_drop_quarter(kept.candidate),
            baseline=_drop_quarter(kept.baseline),
        )
        text = _pack(kept)
    return text


def read_kept(text: str, form: str) -> KeptEvidence | None:
    """What was written; None where it is no such text, or of another form."""
    try:
        unpacker = zlib.decompressobj()
        document = json.loads(unpacker.decompress(base64.b85decode(text), _MOST_BYTES))
        kept = KeptEvidence(
            form=document["form"],
            at=float(document["at"]),
            expected_share=float(document["share"]),
            steady=bool(document["steady"]),
            replayed=bool(document["replayed"]),
            candidate=_read_seen(document["candidate"]),
            baseline=_read_seen(document["baseline"]),
            shadowing=_read_shown(document["shadowing"]),
            numbers=tuple(float(number) for number in document["numbers"]),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, zlib.error, RecursionError):
        return None
    return kept if kept.form == form and np.isfinite((kept.at, kept.expected_share)).all() else None


def _pack(kept: KeptEvidence) -> str:
    document = {
        "form": kept.form,
        "at": kept.at,
        "share": kept.expected_share,
        "steady": kept.steady,
        "replayed": kept.replayed,
        "candidate": {replica: _list_seen(each) for replica, each in kept.candidate.items()},
        "baseline": {replica: _list_seen(each) for replica, each in kept.baseline.items()},
        "shadowing": {
            replica: [each.revision, *_list_samples(each.sent), *_list_samples(each.made)]
            for replica, each in kept.shadowing.items()
        },
        "numbers": kept.numbers,
    }
    return base64.b85encode(zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 9)).decode()


def _list_samples(seen: SeenSamples) -> list[Any]:
    return [seen.candidate_loss, seen.twin_loss, _list_counts(seen.excess), seen.failed]


def _list_seen(seen: SeenReplica) -> list[Any]:
    unrun = None if seen.unrun is None else [seen.unrun.unfit, *_list_counts(seen.unrun.expired)]
    listed = [seen.age_seconds, seen.answered, seen.failed, seen.cpu_seconds, _list_counts(seen.seconds), unrun]
    return listed if seen.shown is None else [*listed, _list_seen(seen.shown)]


def _list_counts(counts: dict[int, int]) -> list[int]:
    """The first bucket, and counts from there on: most that are filled stand side by side."""
    filled = [bucket for bucket, count in counts.items() if count]
    if not filled:
        return []
    return [min(filled), *(counts.get(bucket, 0) for bucket in range(min(filled), max(filled) + 1))]


def _counts(listed: list[int]) -> dict[int, int]:
    return {int(listed[0]) + at: int(count) for at, count in enumerate(listed[1:]) if count} if listed else {}


def _read_seen(document: dict[str, Any]) -> dict[str, SeenReplica]:
    return {str(replica): _read_one(listed) for replica, listed in document.items()}


def _read_one(listed: list[Any]) -> SeenReplica:
    age, answered, failed, cpu, seconds, unrun, *shown = listed
    return SeenReplica(
        float(age),
        int(answered),
        int(failed),
        float(cpu),
        _counts(seconds),
        None if unrun is None else SeenUnrun(int(unrun[0]), _counts(unrun[1:])),
        _read_one(shown[0]) if shown else None,
    )


def _read_shown(document: dict[str, Any]) -> dict[str, SeenShadow]:
    return {
        str(replica): SeenShadow(
            str(revision),
            *(
                SeenSamples(float(loss), float(twin), _counts(excess), int(failed))
                for loss, twin, excess, failed in (listed[:4], listed[4:])
            ),
        )
        for replica, (revision, *listed) in document.items()
    }


def _drop_quarter(known: dict[str, T]) -> dict[str, T]:
    return dict(sorted(known.items())[: len(known) * 3 // 4])


def _arrays(value: Any) -> list[Array]:
    return [value] if isinstance(value, np.ndarray) else [array for part in _parts(value) for array in _arrays(part)]


def _fill(template: Any, numbers: Iterator[float]) -> Any:
    if isinstance(template, np.ndarray):
        return np.fromiter(numbers, float, template.size).reshape(template.shape)
    made = [_fill(part, numbers) for part in _parts(template)]
    return tuple(made) if isinstance(template, tuple) else type(template)(*made)


def _parts(value: Any) -> tuple[Any, ...]:
    """Of a dataclass by its fields' names, which `fields` would search anew each time; a look asks some hundred times."""
    return value if isinstance(value, tuple) else tuple(getattr(value, name) for name in type(value).__match_args__)
