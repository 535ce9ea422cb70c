"""What a replica is told that changes in place: it takes other values without dropping a request."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from penstock.models import Frozen

DEFAULT_MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Of a request's body, at gateways and replicas alike."""


class BatchingSettings(Frozen):
    """How requests become batches. Changes are taken in place."""

    max_batch_size: Annotated[int, Field(ge=1)] = 32
    """Rows in a batch at most. A model for which no axis was proved to count rows runs one request at a time,
    whatever this says."""
    max_delay_milliseconds: Annotated[int, Field(ge=0)] = 0
    """How long a batch may wait for more while the engine is free, besides the waits that are learnt. A lone request never waits
    for it."""
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


class InPlaceSettings(Frozen):
    """All that changes in place in a replica's server."""

    batching: BatchingSettings = BatchingSettings()
    cache: CacheSettings = CacheSettings()
    slo_milliseconds: Annotated[int, Field(gt=0)] | None = None
    """Requests slower than this keep their trace. What would be slower behind all that waits already is refused."""
    max_body_bytes: Annotated[int, Field(gt=0)] = DEFAULT_MAX_BODY_BYTES
    """A larger body gets 413. One that is let through is held whole, with what it is decoded to: of JSON some three times
    as much in all."""
