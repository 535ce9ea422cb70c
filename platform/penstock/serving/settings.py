"""A replica's settings, and the messages on its control pipe.

The supervisor (the Ray actor, or a test) starts `python -m penstock_serving.replica` and writes one JSON line of
`ReplicaSettings` to its standard input, then any number of `Command` lines. The replica writes `Event` lines to its
standard output and logs to standard error. When standard input closes, the replica drains and exits.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from penstock.models import Frozen
from penstock.routing.leases import ReplicaStats
from penstock.serving.manifest import ModelFormat


class BatchingSettings(Frozen):
    """How requests become batches. Changes are taken in place."""

    max_batch_size: Annotated[int, Field(ge=1)] = 32
    """Rows in a batch at most. A model for which no axis was proved to count rows runs one request at a time,
    whatever this says."""
    max_delay_milliseconds: Annotated[int, Field(ge=0)] = 0
    """How long a batch may wait for more while the engine is free. A lone request never waits."""
    max_queued_requests: Annotated[int, Field(ge=1)] = 512
    """Past this many waiting requests the answer is 429 with Retry-After."""


class CacheMode(StrEnum):
    """Whether answers are kept."""

    OFF = "Off"
    EXACT = "Exact"
    """An answer is given again to byte-identical inputs of the same tenant."""


class CacheSettings(Frozen):
    """The prediction cache of a replica. Changes are taken in place."""

    mode: CacheMode = CacheMode.OFF
    max_bytes: Annotated[int, Field(ge=0)] = 64 * 1024 * 1024
    """Of keys and answers together, with what keeping them costs."""
    ttl_seconds: Annotated[float, Field(gt=0)] = 300.0
    """An answer older than this is computed anew."""


class ReplicaSettings(Frozen):
    """All that one replica needs to know."""

    namespace: str
    model: str
    version: str = "1"
    revision: str
    replica_id: str
    storage_uri: str
    model_format: ModelFormat = ModelFormat.ONNX
    digest: str | None = None
    """`sha256:` and 64 hex digits; enforced when given."""
    revision_digest: str | None = None
    """Of the model that the revision's first replica loaded, and so of this one's, too. None: it may be the first."""
    credentials: str | None = None
    """Secret whose keys the process that fetches the model gets, mounted by the pool. Its name, never its content."""
    host: str = "127.0.0.1"
    """Address to listen on and to register with the gateways."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    engine_threads: Annotated[int, Field(ge=1)] = 1
    batching: BatchingSettings = BatchingSettings()
    cache: CacheSettings = CacheSettings()
    trusted_keys: tuple[str, ...] = ()
    """Public keys in PEM. A model whose manifest names an optimization must be signed by one of them; none: such a
    model is refused."""
    require_signature: bool | None = None
    """Whether the model must be a signed one that was made for this deployment, whatever its manifest says. None: where
    there are trusted keys. False: it is the user's own, which only needs a signature where its manifest names one."""
    slo_milliseconds: Annotated[int, Field(gt=0)] | None = None
    """Requests slower than this keep their trace."""
    max_body_bytes: Annotated[int, Field(gt=0)] = 64 * 1024 * 1024
    gateways: tuple[str, ...] = ()
    """Base URLs of gateway agents to register with. None: register nowhere (tests, benchmarks)."""
    registration_token: str = ""
    lease_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    drain_seconds: Annotated[float, Field(ge=0)] = 20.0
    owner_uid: str = ""
    """Of the `InferenceDeployment`. Empty: this start is part of no trace."""
    attempt: Annotated[int, Field(ge=0)] = 0
    attempted_at: int = 0
    """When the revision was declared, in seconds since the Unix epoch."""
    started_ns: int = 0
    """When the replica's actor began, in nanoseconds since the Unix epoch."""


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


class Reconfigure(Frozen):
    """Take these settings now, without dropping a request."""

    type: Literal["reconfigure"] = "reconfigure"
    batching: BatchingSettings
    cache: CacheSettings = CacheSettings()
    slo_milliseconds: int | None = None


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


class Failed(Frozen):
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


Event = Annotated[Ready | Failed | Stats | Drained, Field(discriminator="type")]
EVENT: TypeAdapter[Ready | Failed | Stats | Drained] = TypeAdapter(Event)
