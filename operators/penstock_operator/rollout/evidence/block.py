"""What happened between two looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock.routing.outcomes import LATENCY_SECONDS, LOSS_EDGES
from penstock_operator.rollout.evidence.arrays import Array, Mask

LATENCY_BUCKETS: Final = len(LATENCY_SECONDS) + 1
LOSS_BUCKETS: Final = len(LOSS_EDGES) + 1
BLOCK_SECONDS: Final = 2.0
"""The least length of a block. Requests within one are as one cluster to the estimate of how they depend on each other; replicas
tell their counts every 5/3 s."""


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """Of one arm's replicas that are past warm-up, in one block. Each but `seconds` and `expired` has shape (rollouts,)."""

    answered: Array
    failed: Array
    """By the model; or for any reason, where these are not told apart."""
    unfit: Array
    """Refused before a run, as the model's signature does not take them."""
    seconds: Array
    """Answers by bucket of their time; shape (rollouts, LATENCY_BUCKETS)."""
    expired: Array
    """Requests whose deadline was over before their run, by bucket of how long they had waited; of the same shape."""
    late: Array
    cpu_seconds: Array
    cpu_answers: Array
    """Requests that CPU time was taken by."""
    memory_bytes: Array
    """Mean of its replicas now; 0: not known."""
    replicas: Array

    @property
    def run(self) -> Array:
        """Answered, or failed by the model; also of replicas whose times are left out."""
        return self.answered + self.failed

    @property
    def lapsed(self) -> Array:
        """Those whose deadline was over, however long they had waited."""
        count: Array = self.expired.sum(axis=1)
        return count

    @property
    def requests(self) -> Array:
        """All."""
        return self.run + self.unfit + self.lapsed


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Of answers that were compared; each but `excess` of shape (rollouts,)."""

    excess: Array
    """Samples by bucket of the candidate's loss beyond the twin's; shape (rollouts, LOSS_BUCKETS)."""
    candidate_loss: Array
    """Sum over samples."""
    twin_loss: Array
    failed: Array
    """Of the samples, those that were answered with an error where they were shown, a loss of 1."""

    def drop_failed(self) -> SampleCounts:
        """Without these, which are among those of the greatest excess."""
        room = self.excess[:, ::-1]
        failed = np.clip(self.failed[:, None] - (np.cumsum(room, axis=1) - room), 0.0, room)
        zero = np.zeros_like(self.failed)
        return SampleCounts(self.excess - failed[:, ::-1], self.candidate_loss - self.failed, self.twin_loss, zero)

    @property
    def samples(self) -> Array:
        """How many they are."""
        count: Array = self.excess.sum(axis=1)
        return count


@dataclass(frozen=True, slots=True)
class EvidenceBlock:
    """Both arms' counts, and those of the samples that replicas of the present revision showed to both."""

    seconds: Array
    """That it lasted; shape (rollouts,)."""
    candidate: ArmCounts
    baseline: ArmCounts
    shown_candidate: ArmCounts
    """Of requests that were shown to both arms one at a time, which no client waited for. Memory is left out."""
    shown_baseline: ArmCounts
    sent: SampleCounts
    """Of clients' inputs."""
    made: SampleCounts
    """Of inputs that no client ever sent."""
    expected_share: Array
    """The candidate's of both arms' requests, in [0, 1]."""
    share_holds: Mask
    """Whether that was the share during the whole block, so that counts can be held against it."""
