"""What a Serve application carries in its `args`: what the replicas need, whose it is, and which attempt it is.

Serve echoes `args` in `GET /api/serve/applications/`, so that the operator need not remember any of it. Whatever is in
here starts all replicas anew when it changes; what changes in place is in `UserConfig`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from penstock.models import Frozen
from penstock.serving.manifest import ModelFormat
from penstock.serving.settings import BatchingSettings, CacheSettings

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
    credentials: Annotated[str | None, Field(exclude_if=lambda name: name is None)] = None
    """Secret for fetching the model. Left out where there is none, so that older applications have the same `args`."""
    engine_threads: Annotated[int, Field(ge=1)] = 1
    host: str | None = None
    """Address to listen on; None: the node's own."""
    gateways: tuple[str, ...] = ()
    registration_token: str = ""
    trusted_keys: tuple[str, ...] = ()
    """Public keys in PEM, one of which must have signed an optimized model."""
    require_signature: Annotated[bool, Field(exclude_if=lambda value: not value)] = False
    """Whether the operator declared an optimized model. Left out where it did not, as above."""
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


class UserConfig(Frozen):
    """`user_config`: taken by replicas in place."""

    batching: BatchingSettings = BatchingSettings()
    cache: CacheSettings = CacheSettings()
    slo_milliseconds: int | None = None
    scaling: ScalingSettings = ScalingSettings()
    digest: str | None = None
    """Of the model that this revision is, once its first replica has loaded it. A replica that finds another does not start.

    Where the key itself lacks, the replicas are of a release that refuses it.
    """


class StartFailure(Frozen):
    """Why a replica could not start."""

    reason: str
    message: str
    digest: Annotated[str | None, Field(exclude_if=lambda digest: digest is None)] = None
    """Of the model that it found in the place of the revision's."""
