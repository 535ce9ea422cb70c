"""Capital of bets against a null hypothesis: an e-process, and a detector of changes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_operator.rollout.evidence.arrays import Array, Mask

GREATEST_GAIN: Final = math.log(5.0)
"""Of one block: what happens within some seconds is never enough, however many requests it hit. Cutting an e-value keeps its mean
at most what it was."""
GREATEST_GAIN_OF_TIMES: Final = math.log(1.4)
"""The same of times and CPU time, where what happens within half a minute is never enough: as long may a neighbour of one replica
keep its core, its caches or its memory, and all blocks of that time say the same. Two replicas of one model, on a machine whose cores had
ten times the work that they could do, were seen 2.4 times apart for 20 s. Failures and answers do not depend on neighbours."""
GREATEST_GAIN_OF_WATCHED_FAILURES: Final = math.log(1.55)
"""The same of two seconds' failures where nothing else serves the same requests, so that a client's minute of wrong inputs is not enough."""
_GAIN_SECONDS: Final = 2.0
"""For which these are meant."""
_LEAST: Final = -60.0
"""A bet that lost all but that much has lost."""


def most_within(seconds: Array, gain: float) -> Array:
    """The greatest gain of blocks that last so long, by that of two seconds: a minute counts the same in long blocks and in short ones.

    None gains more than `GREATEST_GAIN`.
    """
    most: Array = np.minimum(gain * seconds / _GAIN_SECONDS, GREATEST_GAIN)
    return most


@dataclass(frozen=True, slots=True)
class Wealth:
    """An e-process that waits for what begins late.

    It starts with 1. Half is staked at the first block, on several alternatives alike; of the other half, 1/(t-1) - 1/t is
    staked on all at block t. So a harm that begins at block t is found with evidence that is by the factor of some 2 t^2 less, not
    by all that was lost before: a mixture over the times of change, which is an e-process since each part is (as the sums of
    e-processes that start one after another in Shin, Ramdas and Rinaldo, "E-detectors", arXiv 2203.03532, but with weights that
    sum to 1, so that Ville's inequality holds for all times together).
    """

    active: Array
    """Log of what is staked, by rollout and alternative, each alternative's as if it were alone."""
    blocks: Array
    """That counted, by rollout."""

    @classmethod
    def start(cls, rollouts: int, alternatives: int) -> Wealth:
        """Nothing is staked yet."""
        return cls(np.full((rollouts, alternatives), _LEAST), np.zeros(rollouts))

    def add(self, gains: Array, counted: Mask, most: float = GREATEST_GAIN) -> Wealth:
        """After a block whose e-values' logs are `gains`, each counted up to `most`, where it counted."""
        t = self.blocks + 1
        entering = np.where(t == 1, 0.5, 0.5 / np.maximum(t * (t - 1), 1))
        staked = np.logaddexp(self.active, np.log(np.maximum(entering, 1e-26))[:, None])
        grown = np.maximum(staked + np.minimum(gains, most), _LEAST)
        return Wealth(np.where(counted[:, None], grown, self.active), self.blocks + counted)

    def log_evidence(self) -> Array:
        """Log of the e-value, by rollout."""
        kept = np.where(self.blocks == 0, 1.0, 0.5 / np.maximum(self.blocks, 1))
        alternatives = self.active.shape[1]
        evidence: Array = np.logaddexp(np.logaddexp.reduce(self.active, axis=1) - math.log(alternatives), np.log(kept))
        return evidence


@dataclass(frozen=True, slots=True)
class ChangeDetector:
    """A mixture of Shiryaev-Roberts e-detectors, one for each alternative.

    R_t = (R_{t-1} + 1) E_t. Without a change R_t - t has no upward drift, so that the mean number of blocks until R first
    reaches A is at least A, and the chance that it does within N blocks at most N/A (Shin, Ramdas and Rinaldo, arXiv 2203.03532).
    """

    active: Array
    """Log of R, by rollout and alternative."""
    blocks: Array

    @classmethod
    def start(cls, rollouts: int, alternatives: int) -> ChangeDetector:
        """Nothing was seen yet."""
        return cls(np.full((rollouts, alternatives), _LEAST), np.zeros(rollouts))

    def add(self, gains: Array, counted: Mask, most: Array | float = GREATEST_GAIN) -> ChangeDetector:
        """After a block whose e-values' logs are `gains`, each counted up to `most`, where it counted."""
        limit = np.broadcast_to(most, counted.shape)[:, None]
        grown = np.maximum(np.logaddexp(self.active, 0.0) + np.minimum(gains, limit), _LEAST)
        return ChangeDetector(np.where(counted[:, None], grown, self.active), self.blocks + counted)

    def log_evidence(self) -> Array:
        """Log of the mixture, by rollout."""
        mixture: Array = np.logaddexp.reduce(self.active, axis=1) - math.log(self.active.shape[1])
        return mixture
