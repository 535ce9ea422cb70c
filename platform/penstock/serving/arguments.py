"""What a Serve application carries in its `args`: what the replicas need, whose it is, and which attempt it is.

Serve echoes `args` in `GET /api/serve/applications/`, so that the operator need not remember any of it. Whatever is in
here starts all replicas anew when it changes; what changes in place is in `UserConfig`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from penstock.models import Frozen
from penstock.scaling.policy import MISS_WEIGHT
from penstock.serving.manifest import ModelFormat
from penstock.serving.settings import InPlaceSettings

FAILURE_MARKER = "penstock-failure: "
"""Precedes a JSON `StartFailure` in the exception by which a replica's constructor fails."""


class Owner(Frozen):
    """The `InferenceDeployment` that an application serves."""

    namespace: str
    name: str
    uid: str


class Attempt(Frozen):
    """How often this application was tried. A new one makes Serve construct replicas again."""

    number: Annotated[int, Field(ge=0)] = 0
    attempted_at: int = 0
    """Seconds since the Unix epoch."""


class ReplicaArguments(Frozen):
    """What each replica is started with, beyond what it learns from Serve."""

    version: str
    revision: str
    storage_uri: str
    model_format: ModelFormat
    digest: str | None = None
    """`sha256:` and 64 hex digits; enforced when given."""
    credentials: Annotated[str | None, Field(exclude_if=lambda name: name is None)] = None
    """Secret whose keys the process that fetches the model gets, mounted by the pool: its name, never its content. Left out
    where there is none, so that older applications have the same `args`."""
    engine_threads: Annotated[int, Field(ge=1)] = 1
    host: str | None = None
    """Address to listen on; None: the node's own."""
    gateways: tuple[str, ...] = ()
    """Base URLs of gateway agents to register with. None: register nowhere (tests, benchmarks)."""
    registration_token: str = ""
    gateway_authority: Annotated[str, Field(exclude_if=lambda pem: not pem)] = ""
    """Certificate in PEM of the platform's own authority. With it, the gateways' agents must show certificates of its, and the
    replica speaks TLS alone, by one that it asks them for. Left out where there is none, as above."""
    trusted_keys: tuple[str, ...] = ()
    """Public keys in PEM. A model whose manifest names an optimization must be signed by one of them; none: such a model is
    refused."""
    require_signature: Annotated[bool | None, Field(exclude_if=lambda value: not value)] = False
    """Whether the model must be a signed one that was made for this deployment, whatever its manifest says: the operator
    declared it. False: it is the user's own, which only needs a signature where its manifest names one; left out, as above.
    None: where there are trusted keys."""
    drain_seconds: Annotated[float, Field(ge=0)] = 20.0


class BuildArguments(Frozen):
    """`args` of the application."""

    owner: Owner
    attempt: Attempt = Attempt()
    replica: ReplicaArguments


class ScalingSettings(Frozen):
    """What the policy needs beyond Serve's own fields.

    It travels by the replicas' statistics: as `policy_kwargs` a change of it would restart every replica.
    """

    stabilization_window_seconds: Annotated[float, Field(ge=0)] = 60.0
    scale_to_zero_after_seconds: Annotated[float, Field(ge=0)] = 300.0


class StaffingSettings(Frozen):
    """What the policy weighs.

    It travels as `ScalingSettings` do, and apart from them, so that replicas of a release that does not know it are not told.
    """

    miss_weight: Annotated[float, Field(ge=1)] = MISS_WEIGHT
    is_target_set: bool = False
    """Whether the user said how many requests in flight a replica should carry."""
    forecast: Annotated[bool, Field(exclude_if=lambda forecast: forecast)] = True
    """Whether load is foreseen. Only what differs from the default is told, so that nothing changes where it does not."""


class Move(Frozen):
    """How a replica gets to another node: one more is started, and once it answers this one leaves.

    It travels in `user_config`, so that Serve echoes how far it is. One that has ended stays there, for `until` to be known.
    """

    under_way: bool
    """Whether there is to be one replica more, until the one that is to leave has left."""
    leaving: str = ""
    """Serve's id of the replica that is to leave, once it is chosen."""
    replicas: Annotated[int, Field(ge=0)] = 0
    """How many there were when it began, which is as many as there are to be when it ends."""
    until: int = 0
    """Epoch seconds: when it is given up, or, once it has ended, before which none begins."""
    misses: Annotated[int, Field(ge=0)] = 0
    """How often in turn the one more came to lie where the others are."""
    again: bool = False
    """Whether the one that leaves is such a one, in whose place another is started. Ray puts them on nodes in turn: to begin anew
    would take two turns, of which Serve takes the second back, and with two nodes the same one would come again and again."""


class UserConfig(InPlaceSettings):
    """`user_config`: taken by replicas in place."""

    scaling: ScalingSettings = ScalingSettings()
    staffing: StaffingSettings = StaffingSettings()
    digest: str | None = None
    """Of the model that this revision is, once its first replica has loaded it. A replica that finds another does not start.

    Where the key itself lacks, the replicas are of a release that refuses it.
    """
    move: Move | None = None
    """A replica on its way to another node, or the last one that was."""

    def keeps_extra(self, replica: str) -> bool:
        """Whether a replica says that there is to be one more than the load wants.

        All do, until one is to leave; then that one does, for as long as it is there.
        """
        move = self.move
        return move is not None and move.under_way and (move.again or move.leaving in ("", replica))

    def sends_away(self, replica: str) -> bool:
        """Whether a replica is the one that is to leave."""
        return self.move is not None and self.move.under_way and self.move.leaving == replica


class StartFailure(Frozen):
    """Why a replica could not start."""

    reason: str
    message: str
    digest: Annotated[str | None, Field(exclude_if=lambda digest: digest is None)] = None
    """Of the model that it found in the place of the revision's."""


def changed_message(found: str, digest: str, revision: str) -> str:
    """What is said where a replica finds another model than its revision is.

    Args:
        found: digest of the model that is there now.
        digest: of the revision's.
        revision: its name.
    """
    return (
        f"The model at storageUri is now {found}, but revision {revision} is {digest}. To roll the new one out, set "
        "spec.model.digest to it, or spec.model.updatePolicy to Automatic; else put the old one back."
    )
