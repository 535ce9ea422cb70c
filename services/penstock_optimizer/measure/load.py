"""The load test of one variant: its batch curve, and what it carries in the profile's scenario.

`python -m penstock_optimizer.measure.load` does it in one process: it reads one line of `LoadRequest` and answers with one
of `LoadAnswer`. Requests of one row go through the replica's own batcher; time is real, and what HTTP costs is not in it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field

from penstock.api.optimization import Workload
from penstock.errors import Invalid
from penstock.models import Frozen
from penstock.optimization.measurements import LoadPoint, Scenario
from penstock.optimization.variants import DataSplits
from penstock.serving.manifest import BatchPoint
from penstock_optimizer.measure import variant as variants
from penstock_optimizer.measure.answering import answer_one_request
from penstock_optimizer.measure.channel import ChildGone, ask_once
from penstock_optimizer.measure.placement import shared_cores
from penstock_optimizer.measure.scenarios import Drive, Subject, batch_curve, closed_loop, find_highest_rate, offline
from penstock_optimizer.samples.arrays import read, rows_of, rows_of_run, write_arrays
from penstock_optimizer.search.capacity import capacity
from penstock_runtime.joining import prove

LOAD_FAILED: Final = "LoadTestFailed"
_MODULE: Final = "penstock_optimizer.measure.load"
_SPARE_SECONDS: Final = 120.0
"""For loading, and for runs that take longer than the time that is set for them."""
_CURVE_SHARE: Final = 0.4
"""Of the time, for the batch curve."""
_SAMPLES: Final = 256


class LoadRequest(Frozen):
    """All that the child needs to know."""

    variant: str
    """The folder."""
    samples: str
    """An `.npz` file."""
    workload: Workload
    bound_milliseconds: float | None
    seconds: float = Field(gt=0)
    cores: tuple[int, ...] | None
    seed: int


class LoadAnswer(Frozen):
    """What came out."""

    load: LoadPoint | None = None
    curve: tuple[BatchPoint, ...] = ()
    problem: str | None = None


def load_test(
    folder: Path,
    data: DataSplits,
    workload: Workload,
    bound_milliseconds: float | None,
    *,
    seconds: float = 12.0,
    seed: int = 0,
    sandbox: bool = True,
    hidden: Sequence[Path] = (),
) -> tuple[LoadPoint, tuple[BatchPoint, ...]]:
    """Load a finalist.

    Args:
        folder: its variant folder.
        data: whose test inputs are sent.
        workload: the scenario, and up to which batch size the curve goes.
        bound_milliseconds: p99 that requests must keep; None: the most that goes through.
        seconds: to spend on measuring, about.
        seed: of the arrivals.
        sandbox: whether a variant that is code runs isolated.
        hidden: files that it must not see there.

    Returns:
        The most that it carries, 0 requests a second where not even a slow trickle keeps the bound; and the batch curve,
        by ascending rows.

    Raises:
        Invalid: LoadTestFailed, or that the folder holds no variant.
    """
    variant = variants.read_variant(folder)
    samples = read(Path(data.test))
    count = min(len(next(iter(samples.values()))), _SAMPLES)
    with tempfile.TemporaryDirectory(prefix="penstock-load-") as scratch:
        path = Path(scratch) / "samples.npz"
        write_arrays(rows_of(samples, np.arange(count)), path)
        request = LoadRequest(
            variant=str(folder),
            samples=str(path),
            workload=workload,
            bound_milliseconds=bound_milliseconds,
            seconds=seconds,
            cores=shared_cores(variant.engine.threads),
            seed=seed,
        )
        try:
            isolated = sandbox if variants.is_code(variant) else None
            timeout = seconds * 3 + _SPARE_SECONDS
            threads = variant.engine.threads
            answer = ask_once(_MODULE, request, LoadAnswer, timeout, threads, isolated=isolated, hidden=hidden)
        except ChildGone as error:
            raise Invalid(LOAD_FAILED, f"{variant.recipe.label} under load: {error}") from error
    if answer.load is None:
        raise Invalid(LOAD_FAILED, f"{variant.recipe.label} under load: {answer.problem}")
    return answer.load, answer.curve


def run(request: LoadRequest) -> LoadAnswer:
    """In the child: the curve, then the scenario at the knee's batch size.

    Raises:
        Invalid: the variant cannot be loaded.
    """
    variants.pin_to_cores(request.cores)
    variant, engine = variants.open_variant(Path(request.variant))
    # As each replica of the result will find it. Samples are stacked on an axis of their own, which must be the same.
    proved = prove(engine, variant.engine, request.workload.max_batch_size).joining
    stacked = rows_of_run(engine.signature, request.workload.max_batch_size) > 1
    joined = stacked and proved is not None and not any(proved.inputs.values())
    subject = Subject(variant, engine, read(Path(request.samples)), joined)
    curve = batch_curve(subject, request.workload.max_batch_size, request.seconds * _CURVE_SHARE)
    bound = request.bound_milliseconds
    found_capacity = capacity(curve, bound, None)
    knee = found_capacity.max_batch_size
    drive = Drive(subject, knee, request.seed)
    left = request.seconds * (1 - _CURVE_SHARE)
    match request.workload.scenario:
        case Scenario.SINGLE_STREAM:
            found = closed_loop(drive, left / 2, in_flight=1)
        case Scenario.OFFLINE:
            found = offline(drive, left / 2)
        case Scenario.SERVER if bound is None:
            found = closed_loop(drive, left / 2, in_flight=2 * knee)
        case Scenario.SERVER:
            found = find_highest_rate(drive, left, bound, found_capacity.requests_per_second)
    return LoadAnswer(
        curve=curve,
        load=LoadPoint(
            recipe_key=subject.variant.recipe.key,
            requests_per_second=found.requests_per_second,
            p50_milliseconds=found.p50_milliseconds,
            p99_milliseconds=found.p99_milliseconds,
            bound_milliseconds=bound,
            cpu_seconds_per_request=found.cpu_seconds_per_request,
            joining=proved,
        ),
    )


def main() -> None:
    """Answer one request."""
    answer_one_request(
        lambda line: run(LoadRequest.model_validate_json(line)), lambda problem: LoadAnswer(problem=problem)
    )


if __name__ == "__main__":
    main()
