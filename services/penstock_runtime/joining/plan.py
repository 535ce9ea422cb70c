"""What a trial runs: small requests of different kinds, alone and together.

Each kind beats models that another would not: an equal beside an equal tells nothing of a mean over the batch, a neighbour
1,000 times as large tells of a scale per run, and NaN goes through whatever mixes rows, however little.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Fill(StrEnum):
    """What a request's tensors hold. Integers are ids: 0 and 1, unless they are `WIDE`."""

    RANDOM = "random"
    POSITIVE = "positive"
    NEGATIVE = "negative"
    ZEROS = "zeros"
    ONES = "ones"
    SMALL = "small"
    """Floats of a thousandth."""
    LARGE = "large"
    """Floats of ten thousands, with either sign."""
    LARGE_POSITIVE = "large positive"
    LARGE_NEGATIVE = "large negative"
    NAN = "NaN"
    INFINITE = "infinite"
    MINUS_INFINITE = "minus infinite"
    WIDE = "wide"
    """All integers from 0, as far as there is room."""


@dataclass(frozen=True, slots=True)
class Member:
    """A request of the trial."""

    name: str
    fill: Fill
    rows: int
    judged: bool = True
    """Whether its answer must be the same alone and together. Of one with extreme values only what it does to others counts:
    its own rounding may be large."""


CORE: Final = (
    Member("a", Fill.RANDOM, 1),
    Member("b", Fill.RANDOM, 2),
    Member("positive", Fill.POSITIVE, 1),
    Member("negative", Fill.NEGATIVE, 1),
    Member("zeros", Fill.ZEROS, 1),
)
"""Those without which nothing is proved."""
FURTHER: Final = (
    Member("c", Fill.RANDOM, 3),
    Member("ones", Fill.ONES, 2),
    Member("small", Fill.SMALL, 1),
)
EXTREMES: Final = (
    Member("large", Fill.LARGE, 1, judged=False),
    Member("large positive", Fill.LARGE_POSITIVE, 1, judged=False),
    Member("large negative", Fill.LARGE_NEGATIVE, 1, judged=False),
    Member("NaN", Fill.NAN, 1, judged=False),
    Member("infinite", Fill.INFINITE, 1, judged=False),
    Member("minus infinite", Fill.MINUS_INFINITE, 1, judged=False),
    Member("wide", Fill.WIDE, 8, judged=False),
)
MEMBERS: Final = {each.name: each for each in (*CORE, *FURTHER, *EXTREMES)}

CORE_RUNS: Final = (
    ("b", "a", "positive", "negative", "zeros"),
    ("zeros", "negative", "positive", "a", "b"),
    ("large", "a", "b"),
    ("b", "negative", "large positive"),
    ("large negative", "positive", "b"),
    ("a", "NaN", "b"),
    ("infinite", "b", "a"),
    ("b", "minus infinite", "a"),
    ("wide", "zeros", "b"),
)
"""Which requests run together, in which order, beside `a` and `b`: enough to prove an axis."""
FURTHER_RUNS: Final = (
    ("b", "a"),
    ("c", "a"),
    ("a", "positive", "negative"),
    ("zeros", "b"),
    ("b", "zeros"),
    ("ones", "a"),
    ("a", "ones"),
    ("zeros", "ones"),
    ("ones", "zeros"),
    ("small", "b"),
    ("positive", "small"),
    ("a", "large"),
    ("large positive", "b"),
    ("positive", "large negative"),
    ("zeros", "large"),
    ("NaN", "b"),
    ("a", "infinite"),
    ("infinite", "b"),
    ("a", "wide"),
)
"""More of the same, for a model that is fast."""
_FILLERS: Final = ("b", "positive", "a", "c", "negative", "zeros", "small", "ones")
_SIZES: Final = (5, 6, 7, 8, 9, 16, 17, 32)
BRIEF: Final = (("b", "a"), ("large", "b"), ("a", "positive", "b"))
"""For other lengths of the axes beside the batch."""


def sizes(max_rows: int) -> tuple[int, ...]:
    """Numbers of rows that are tried, too: a model may change its ways with more of them. The most that a batch may have first."""
    return (max_rows, *(each for each in _SIZES if each != max_rows))


def members_filling(rows: int, present: Collection[str]) -> tuple[str, ...]:
    """Judged requests that have so many rows together."""
    known = {name: MEMBERS[name].rows for name in present}
    chosen: list[str] = []
    left = rows
    while left > 0:
        before = left
        for name in _FILLERS:
            if 0 < known.get(name, 0) <= left:
                chosen.append(name)
                left -= known[name]
        if left == before:
            return ()
    return tuple(chosen)
