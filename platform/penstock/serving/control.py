"""The control pipe between a replica's server and its supervisor: the settings, and the messages.

The supervisor (the Ray actor, or a test) starts `python -m penstock_serving.replica` and writes one JSON line of
`ReplicaSettings` to its standard input, then any number of `Command` lines. The replica writes `Event` lines to its
standard output and logs to standard error. When standard input closes, the replica drains and exits.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from penstock.cost.usage import ReservedResources
from penstock.models import Frozen
from penstock.routing.leases import ReplicaStats
from penstock.serving.arguments import BuildArguments, ReplicaArguments, UserConfig
from penstock.serving.manifest import ModelFormat
from penstock.serving.settings import InPlaceSettings


class ActorFacts(Frozen):
    """What only the replica's actor knows of it."""

    process: int = 0
    """Its number, 0 where there is none: what it uses is the replica's, too."""
    raylet: int = 0
    """The raylet's number, whose other processes the worker's replicas share; 0: there is none."""
    reserved: ReservedResources = ReservedResources()


class ReplicaSettings(ReplicaArguments, InPlaceSettings):
    """All that one replica needs to know: what its application says, and where and as which replica it runs."""

    namespace: str
    model: str
    version: str = "1"
    replica_id: str
    model_format: ModelFormat = ModelFormat.ONNX
    revision_digest: str | None = None
    """Of the model that the revision's first replica loaded, and so of this one's, too. None: it may be the first."""
    host: str = "127.0.0.1"
    """Address to listen on and to register with the gateways."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    require_signature: bool | None = None
    lease_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    owner_uid: str = ""
    """Of the `InferenceDeployment`. Empty: this start is part of no trace."""
    attempt: Annotated[int, Field(ge=0)] = 0
    attempted_at: int = 0
    """When the revision was declared, in seconds since the Unix epoch."""
    started_ns: int = 0
    """When the replica's actor began, in nanoseconds since the Unix epoch."""
    actor: ActorFacts = ActorFacts()

    @classmethod
    def from_application(
        cls,
        application: BuildArguments,
        config: UserConfig,
        *,
        replica_id: str,
        host: str,
        started_ns: int,
        actor: ActorFacts,
    ) -> ReplicaSettings:
        """The settings of an application's replica.

        Args:
            application: its `args`.
            config: its `user_config`.
            replica_id: which of its replicas this is.
            host: its node's address, where the application names none.
            started_ns: when its actor began.
            actor: what Ray keeps for it, and by which processes.
        """
        return cls(
            **{**dict(application.replica), "host": application.replica.host or host},
            **settings_in_place(config),
            namespace=application.owner.namespace,
            model=application.owner.name,
            replica_id=replica_id,
            revision_digest=config.digest,
            owner_uid=application.owner.uid,
            attempt=application.attempt.number,
            attempted_at=application.attempt.attempted_at,
            started_ns=started_ns,
            actor=actor,
        )


class Reconfigure(InPlaceSettings):
    """Take these settings now, without dropping a request."""

    type: Literal["reconfigure"] = "reconfigure"

    @classmethod
    def from_config(cls, config: UserConfig) -> Reconfigure:
        """What an application's `user_config` says now."""
        return cls(**settings_in_place(config))


def settings_in_place(config: UserConfig) -> dict[str, Any]:
    """What the server takes of a `user_config`; the rest is the actor's."""
    return {name: getattr(config, name) for name in InPlaceSettings.model_fields}


class Drain(Frozen):
    """Leave the gateways, answer what is in flight, say `drained`, exit 0."""

    type: Literal["drain"] = "drain"


class QueryStats(Frozen):
    """Answer with a `stats` event."""

    type: Literal["stats"] = "stats"


Command = Annotated[Reconfigure | Drain | QueryStats, Field(discriminator="type")]
COMMAND: TypeAdapter[Reconfigure | Drain | QueryStats] = TypeAdapter(Command)


class Ready(Frozen):
    """The model is loaded and warm, and the socket answers."""

    type: Literal["ready"] = "ready"
    address: str
    digest: str


class StartFailed(Frozen):
    """The replica cannot start; it exits with 1. Reasons are those of `penstock.api.conditions`."""

    type: Literal["failed"] = "failed"
    reason: str
    message: str
    digest: str | None = None
    """Of the model that it found in the place of the revision's."""


class Stats(Frozen):
    """The answer to `QueryStats`."""

    type: Literal["stats"] = "stats"
    stats: ReplicaStats


class Drained(Frozen):
    """Nothing is in flight any more."""

    type: Literal["drained"] = "drained"


Event = Annotated[Ready | StartFailed | Stats | Drained, Field(discriminator="type")]
EVENT: TypeAdapter[Ready | StartFailed | Stats | Drained] = TypeAdapter(Event)
