"""A session: one process a contestant, all alive, one at a time in a new random order each round."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from penstock.errors import Invalid
from penstock.optimization.measurements import Energy, EnergyMethod, Role, Timing
from penstock.optimization.variants import Variant
from penstock_optimizer.measure.channel import Channel, ChildGone
from penstock_optimizer.measure.messages import (
    ANSWER,
    Command,
    Failed,
    Load,
    Loaded,
    Ran,
    Run,
    Summarize,
    Summary,
    Warm,
    Warmed,
)
from penstock_optimizer.measure.placement import shared_cores
from penstock_optimizer.measure.variant import is_code, read_variant
from penstock_optimizer.samples.arrays import read, rows_of, write_arrays

A = TypeVar("A", Loaded, Warmed, Ran, Summary)

_WORKER: Final = "penstock_optimizer.measure.worker"
_DIFFERENT_BATCHES: Final = 8
"""So many are cut from the samples and taken in turn."""
_MOST_ROWS: Final = 256
_WARM_TURNS: Final = 5
_LEAST_WARM_SECONDS: Final = 0.5
_LEAST_RUNS: Final = 2
_MOST_RUNS: Final = 200_000


@dataclass(frozen=True)
class Contestant:
    """A variant that takes part, and what for."""

    role: Role
    recipe_key: str
    folder: Path


@dataclass(frozen=True)
class SessionSettings:
    """How to measure."""

    batch_size: int
    samples: Path
    """An `.npz` file with the model's inputs."""
    rounds: int = 15
    seconds_per_round: float = 0.15
    """Of each contestant; from it follows its number of runs, which is the same in every round."""
    runs_per_round: int | None = None
    """A fixed number of runs instead."""
    seed: int = 0
    sandbox: bool = True
    """Whether contestants that are code run isolated."""
    hidden: tuple[Path, ...] = ()
    """Files that those must not see."""
    timeout: float = 120.0
    """Seconds that a contestant may take to load, or for one turn. One that takes longer is out."""


@dataclass(frozen=True)
class SessionResult:
    """What came out."""

    timings: tuple[Timing, ...]
    """Of those that finished, in the order of the contestants."""
    problems: dict[str, str]
    """By recipe key: why one did not finish."""


@dataclass
class _Seat:
    """A contestant at work."""

    contestant: Contestant
    channel: Channel
    timeout: float
    runs: int = 1
    loaded: Loaded | None = None
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    joules: list[float | None] = field(default_factory=list)

    def ask(self, command: Command, wanted: type[A], extra_seconds: float = 0.0) -> A:
        """Send a command and wait for its answer.

        Raises:
            ChildGone: it failed, went, or took too long.
        """
        self.channel.tell(command.model_dump_json())
        answer = ANSWER.validate_json(self.channel.hear(self.timeout + extra_seconds))
        if isinstance(answer, Failed):
            raise ChildGone(answer.message)
        if not isinstance(answer, wanted):
            raise ChildGone(f"it answered '{answer.type}' to '{command.type}'")
        return answer


def run_session(contestants: Sequence[Contestant], settings: SessionSettings) -> SessionResult:
    """Measure contestants against each other.

    Each round every contestant gets one turn, alone, in an order of the round's own; a turn has the same number of runs in
    every round. All are pinned to the same cores. One that fails, dies or takes too long is out, and the others go on.

    Returns:
        A timing for each that finished, and the problems of the others.

    Raises:
        Invalid: the samples cannot be read.
    """
    problems: dict[str, str] = {}
    timings: list[Timing] = []
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-session-"))
        samples = Path(scratch) / "samples.npz"
        _write_samples(settings, samples)
        known = _read_variants(contestants, problems)
        cores = shared_cores(max((each.engine.threads for each in known.values()), default=1))
        # All start at once, but each loads alone, so that loading times can be compared.
        seats = [
            _Seat(each, stack.enter_context(_channel(variant, settings)), settings.timeout)
            for each, variant in known.items()
        ]
        seats = _take_turns(seats, problems, lambda seat: _prepare(seat, settings, samples, cores))
        shuffle = random.Random(settings.seed)  # noqa: S311 -- an order, not a secret
        for _ in range(settings.rounds):
            seats = _take_turns(shuffle.sample(seats, len(seats)), problems, _turn)
        seats.sort(key=lambda seat: contestants.index(seat.contestant))
        _take_turns(seats, problems, lambda seat: timings.append(_timing(seat, settings)))
    return SessionResult(tuple(timings), problems)


def _channel(variant: Variant, settings: SessionSettings) -> Channel:
    isolated = settings.sandbox if is_code(variant) else None
    return Channel(_WORKER, variant.engine.threads, isolated=isolated, hidden=settings.hidden)


def _read_variants(contestants: Sequence[Contestant], problems: dict[str, str]) -> dict[Contestant, Variant]:
    """What each contestant is whose folder tells it."""
    known: dict[Contestant, Variant] = {}
    for contestant in contestants:
        try:
            known[contestant] = read_variant(contestant.folder)
        except Invalid as error:
            problems[contestant.recipe_key] = _prefix_role(contestant, error.message)
    return known


def _take_turns(seats: Sequence[_Seat], problems: dict[str, str], act: Callable[[_Seat], None]) -> list[_Seat]:
    """Let each act in turn. One that fails is closed and noted; the others are returned."""
    fit: list[_Seat] = []
    for seat in seats:
        try:
            act(seat)
        except ChildGone as error:
            seat.channel.close()
            problems[seat.contestant.recipe_key] = _prefix_role(seat.contestant, str(error))
        else:
            fit.append(seat)
    return fit


def _prefix_role(contestant: Contestant, message: str) -> str:
    """A copy or a control carries another's key, or none that people know: its role goes first."""
    return message if contestant.role is Role.CANDIDATE else f"{contestant.role}: {message}"


def _write_samples(settings: SessionSettings, path: Path) -> None:
    """A few batches, so that no worker's memory holds a whole data set. Few samples are repeated to fill a batch."""
    samples = read(settings.samples)
    count = len(next(iter(samples.values())))
    size = settings.batch_size
    batches = min(_DIFFERENT_BATCHES, max(1, count // size), max(1, _MOST_ROWS // size))
    write_arrays(rows_of(samples, np.arange(size * batches) % count), path)


def _prepare(seat: _Seat, settings: SessionSettings, samples: Path, cores: tuple[int, ...] | None) -> None:
    """Load, warm up, and settle how many runs a turn has."""
    load = Load(folder=str(seat.contestant.folder), samples=str(samples), batch_size=settings.batch_size, cores=cores)
    seat.loaded = seat.ask(load, Loaded)
    seconds = max(_LEAST_WARM_SECONDS, _WARM_TURNS * settings.seconds_per_round)
    warmed = seat.ask(Warm(seconds=seconds), Warmed, seconds)
    wanted = math.ceil(settings.seconds_per_round / max(warmed.wall_seconds_per_run, 1e-9))
    seat.runs = settings.runs_per_round or min(max(wanted, _LEAST_RUNS), _MOST_RUNS)


def _turn(seat: _Seat) -> None:
    ran = seat.ask(Run(runs=seat.runs), Ran)
    seat.cpu.append(ran.cpu_seconds / seat.runs)
    seat.wall.append(ran.wall_seconds / seat.runs)
    seat.joules.append(ran.joules)


def _timing(seat: _Seat, settings: SessionSettings) -> Timing:
    summary = seat.ask(Summarize(), Summary)
    assert seat.loaded is not None  # noqa: S101 -- nobody gets a turn who has not loaded
    runs = seat.runs * len(seat.cpu)
    joules = [each for each in seat.joules if each is not None]
    measured = sum(joules) / (runs * settings.batch_size) if len(joules) == len(seat.joules) and joules else None
    return Timing(
        role=seat.contestant.role,
        recipe_key=seat.contestant.recipe_key,
        batch_size=settings.batch_size,
        rounds=len(seat.cpu),
        runs=runs,
        cpu_seconds_per_run=tuple(seat.cpu),
        wall_seconds_per_run=tuple(seat.wall),
        accelerated=seat.loaded.accelerated,
        wall_milliseconds_p50=summary.wall_milliseconds_p50,
        wall_milliseconds_p99=summary.wall_milliseconds_p99,
        histogram_milliseconds=summary.histogram_milliseconds,
        peak_memory_bytes=summary.peak_memory_bytes,
        load_seconds=seat.loaded.load_seconds,
        energy=Energy(
            method=summary.energy_method if measured is not None else EnergyMethod.ESTIMATED,
            cpu_seconds_per_sample=float(np.median(seat.cpu)) / settings.batch_size,
            joules_per_sample=measured,
        ),
    )
