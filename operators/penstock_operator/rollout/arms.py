"""Which applications stand beside each other, with how many replicas, and what share of the requests each gets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

FULL: Final = 100
_BASELINE: Final = "-b"
LEFT_SHARE: Final = 1
"""Percent that are left to what was there before."""
LARGE_SHARE: Final = 25
"""Percent from which on a candidate and its baseline grow with the stable revision: clients would feel it if they did not."""


@dataclass(frozen=True, slots=True)
class ReplicaRange:
    """Replicas that an application is to have."""

    least: int
    most: int | None = None
    """None: as the spec says."""


def exactly(count: int) -> ReplicaRange:
    """So many, whatever comes."""
    return ReplicaRange(count, count)


def baseline_of(stable: str) -> str:
    """The revision of replicas of the stable model that start together with a candidate's."""
    return f"{stable}{_BASELINE}"


def is_baseline(revision: str) -> bool:
    """Whether a revision is another's baseline. It serves for a comparison, and is never the active one."""
    return revision.endswith(_BASELINE)


def full_size(running: int, low: int, high: int) -> int:
    """Replicas that a revision must have before it gets all requests: as many as the other runs, within the bounds."""
    return max(1, low, min(high, running))


def size_for(weight: int, size: int) -> int:
    """Replicas for a share of the requests.

    Args:
        weight: percent.
        size: replicas that all requests take.
    """
    return max(1, math.ceil(weight * size / FULL))


def baseline_size(replicas: int, *, shared: bool) -> int:
    """Replicas of a baseline: as many as the candidate has where clients' requests are shared, else one to be shown requests."""
    return replicas if shared else 1


def shares(stable: str, candidate: str, baseline: str, weight: int) -> Mapping[str, int]:
    """Percent of the requests by revision, without those that get none.

    The baseline gets what the candidate does, so that both have as much to do, as far as there is enough. Some is left to what
    was there before, so that it goes on seeing what clients send, and shows it.

    Args:
        stable: revision.
        candidate: revision.
        baseline: revision; empty where there is none.
        weight: the candidate's percent.
    """
    beside = _share_beside(weight) if baseline else 0
    given = {stable: FULL - weight - beside, baseline: beside, candidate: weight}
    return {revision: share for revision, share in given.items() if share}


def expected_share(weight: int, *, has_baseline: bool) -> float:
    """The candidate's part of its own and its baseline's requests, in [0, 1]."""
    if not has_baseline:
        return weight / FULL
    return weight / (weight + _share_beside(weight)) if weight else 0.0


def _share_beside(weight: int) -> int:
    return min(weight, max(FULL - weight - LEFT_SHARE, 1), FULL - weight)
