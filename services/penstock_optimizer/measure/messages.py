"""What a session and its workers say to each other, one JSON object a line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from penstock.models import Frozen
from penstock.optimization.measurements import EnergyMethod


class Load(Frozen):
    """Go to these cores, load the variant, and cut batches from the samples."""

    type: Literal["load"] = "load"
    folder: str
    samples: str
    """An `.npz` file."""
    batch_size: Annotated[int, Field(ge=1)]
    cores: tuple[int, ...] | None = None
    """None: wherever the system puts it."""


class Warm(Frozen):
    """Run until a run takes as long as before, but no longer than so many seconds."""

    type: Literal["warm"] = "warm"
    seconds: float


class Run(Frozen):
    """Run so often, timed. A few runs before bring the caches back from who was on the core meanwhile."""

    type: Literal["run"] = "run"
    runs: Annotated[int, Field(ge=1)]


class Summarize(Frozen):
    """Say what all timed runs were like."""

    type: Literal["summarize"] = "summarize"


Command = Annotated[Load | Warm | Run | Summarize, Field(discriminator="type")]
COMMAND: TypeAdapter[Load | Warm | Run | Summarize] = TypeAdapter(Command)


class Loaded(Frozen):
    """The answer to `Load`."""

    type: Literal["loaded"] = "loaded"
    load_seconds: float
    accelerated: bool
    """Whether a GPU does the work."""


class Warmed(Frozen):
    """The answer to `Warm`."""

    type: Literal["warmed"] = "warmed"
    wall_seconds_per_run: float


class Ran(Frozen):
    """The answer to `Run`."""

    type: Literal["ran"] = "ran"
    cpu_seconds: float
    """Of the process, all its threads together."""
    wall_seconds: float
    joules: float | None = None


class Summary(Frozen):
    """The answer to `Summarize`."""

    type: Literal["summary"] = "summary"
    wall_milliseconds_p50: float
    wall_milliseconds_p99: float
    histogram_milliseconds: tuple[tuple[float, int], ...]
    peak_memory_bytes: int
    energy_method: EnergyMethod


class Failed(Frozen):
    """The answer to anything that went wrong."""

    type: Literal["failed"] = "failed"
    message: str


Answer = Annotated[Loaded | Warmed | Ran | Summary | Failed, Field(discriminator="type")]
ANSWER: TypeAdapter[Loaded | Warmed | Ran | Summary | Failed] = TypeAdapter(Answer)
