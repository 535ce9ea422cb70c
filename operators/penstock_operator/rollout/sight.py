"""What a rollout is decided on. All of it was observed a moment ago, or stands in the status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.api.rollout import RolloutStatus
from penstock.api.rollout_commands import RolloutCommand
from penstock.routing.outcomes import ReplicaOutcomes
from penstock_operator.rollout.settings import RolloutSettings


@dataclass(frozen=True, slots=True)
class ArmReplica:
    """A replica as the gateways hear of it."""

    outcomes: ReplicaOutcomes | None = None
    in_flight: float = 0.0
    """Mean over its last reporting interval."""
    idle_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ArmSight:
    """One revision's application."""

    declared: int = 0
    """Replicas that it was told to have at least."""
    running: int = 0
    wanted: int = 0
    """Replicas that Serve is to run now."""
    placed: bool = True
    """Whether Serve has built it, and each replica has a node."""
    waiting_since: float | None = None
    """Epoch seconds since which a replica has no node."""
    failure: str = ""
    """Why its replicas do not start."""
    listed: int = 0
    """Replicas that every gateway lists."""
    made_of: str = ""
    """What its replicas were started with, by a hash. Where that changes, they are started anew because we ask for it."""
    replicas: Mapping[str, ArmReplica] = field(default_factory=dict)
    """By id, all that a gateway lists."""


ABSENT = ArmSight(placed=False)
"""There is no application."""


@dataclass(frozen=True, slots=True)
class RolloutSight:
    """A candidate beside what serves."""

    candidate: str
    """Revision."""
    stable: str
    """Revision that serves."""
    baseline: str
    """Revision of the stable model's replicas that start together with the candidate's."""
    settings: RolloutSettings
    record: RolloutStatus | None
    """As the status has it; None: it begins now."""
    arms: Mapping[str, ArmSight]
    """By revision, of applications that there are."""
    low: int
    high: int
    """Bounds of the deployment's replicas."""
    comparable: bool
    """Whether all gateways that answer can compare revisions."""
    switched: bool
    """Whether all gateways send requests to the candidate alone."""
    room_for_baseline: bool
    """Whether the namespace's quota leaves room for it."""
    command: RolloutCommand | None
    """What people say now."""
    now: float
    """Epoch seconds."""

    def arm(self, revision: str) -> ArmSight:
        """What is seen of a revision."""
        return self.arms.get(revision, ABSENT)
