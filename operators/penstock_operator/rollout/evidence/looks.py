"""A look at what replicas counted, and the block that it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock.routing.outcomes import ReplicaOutcomes
from penstock_operator.rollout.evidence.block import BLOCK_SECONDS, EvidenceBlock
from penstock_operator.rollout.evidence.keeping import KeptEvidence
from penstock_operator.rollout.evidence.seen import (
    MOST_REPLICAS,
    arm_difference,
    keep_replicas,
    keep_shadows,
    shadow_difference,
    shown_difference,
    slowest_replica,
    tells_unrun,
)

_LONGEST_BLOCK: Final = 10.0
"""Seconds after which a block ends though one arm told nothing new."""
_CLOCK_FELL: Final = 300.0
"""Seconds by which a look is earlier than one before it, from which on the other clock is taken to have been wrong."""


@dataclass(frozen=True, slots=True)
class EvidenceLook:
    """What gateways tell at one moment: cumulative counts by replica id."""

    at: float
    """Epoch seconds."""
    candidate: Mapping[str, ReplicaOutcomes]
    baseline: Mapping[str, ReplicaOutcomes]
    """The young baseline's, or the fleet's where there was no room for one."""
    shadowing: Mapping[str, ReplicaOutcomes]
    """Of replicas that show samples to others; `shadow` counts."""
    expected_share: float
    """The candidate's share of what candidate and baseline get, by the route's weights. 0: it gets none."""


def is_earlier(look: EvidenceLook, kept: KeptEvidence) -> bool:
    """Whether it is so much earlier than what is known that it begins a new series of blocks."""
    return kept.at - look.at > _CLOCK_FELL


def end_block(look: EvidenceLook, kept: KeptEvidence, warm_up_seconds: float, *, alone: bool) -> EvidenceBlock | None:
    """What happened since the last block, if a block ends here.

    Args:
        look: The present one.
        kept: Since when.
        warm_up_seconds: Of each replica.
        alone: Whether the candidate has all requests, so that its news are enough; else both arms must have some. Then times
            of the slowest of its replicas are left out, where there are two or more: what a revision does shows in all that it has, and what
            shows in one alone is its node's doing.
    """
    passed = look.at - kept.at
    if passed < BLOCK_SECONDS:
        return None
    spared = slowest_replica(look.candidate, kept.candidate, warm_up_seconds) if alone else ""
    # Where one arm's replicas are of a release that tells them not apart, both arms' are compared as that one's are counted.
    apart = tells_unrun(look.candidate, kept.candidate, warm_up_seconds) and (
        alone or tells_unrun(look.baseline, kept.baseline, warm_up_seconds)
    )
    candidate = arm_difference(look.candidate, kept.candidate, warm_up_seconds, spared, apart=apart)
    baseline = arm_difference(look.baseline, kept.baseline, warm_up_seconds, apart=apart)
    shown = shadow_difference(look.shadowing, kept.shadowing)
    shown_candidate = shown_difference(look.candidate, kept.candidate, warm_up_seconds, spared)
    shown_baseline = shown_difference(look.baseline, kept.baseline, warm_up_seconds)
    asked = candidate.requests[0] > 0 and (alone or baseline.requests[0] > 0)
    both = shown_candidate.requests[0] > 0 and shown_baseline.requests[0] > 0
    compared = shown.sent.samples[0] > 0 or shown.made.samples[0] > 0
    told = asked or both or (compared and look.expected_share == 0)
    if not told and passed < _LONGEST_BLOCK:
        return None
    few = max(len(look.candidate), len(look.baseline)) <= MOST_REPLICAS
    return EvidenceBlock(
        seconds=np.array([passed]),
        candidate=candidate,
        baseline=baseline,
        shown_candidate=shown_candidate,
        shown_baseline=shown_baseline,
        sent=shown.sent,
        made=shown.made,
        expected_share=np.array([look.expected_share]),
        share_holds=np.array([few and kept.steady and kept.expected_share == look.expected_share]),
    )


def keep_look(
    look: EvidenceLook, former: KeptEvidence | None, form: str, numbers: tuple[float, ...], *, replayed: bool = False
) -> KeptEvidence:
    """What is to be known at the next look."""
    return KeptEvidence(
        form=form,
        at=look.at,
        expected_share=look.expected_share,
        steady=former is not None and former.expected_share == look.expected_share,
        replayed=replayed or (former is not None and former.replayed),
        candidate=keep_replicas(look.candidate, former.candidate if former else {}),
        baseline=keep_replicas(look.baseline, former.baseline if former else {}),
        shadowing=keep_shadows(look.shadowing, former.shadowing if former else {}),
        numbers=numbers,
    )
