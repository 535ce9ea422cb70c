"""One run of the engine for one request or several: join, run, look whether the answer can be parted, part it.

That requests can be joined was proved by trials on made requests (`penstock_runtime.joining`). Real ones are looked at, too:
the first joint runs, each that is larger than any before, and a few of all others are compared with a lone run of one of their
members. Where a joint answer is not what its members' own are, they are run one by one, and joining ends for good.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from penstock.errors import Invalid
from penstock.protocol.refusals import Refusal
from penstock.serving.joining import Joining
from penstock.serving.rows import join_rows, part_rows
from penstock_runtime.batching.batcher import BatchStep
from penstock_runtime.batching.ticket import Ticket
from penstock_runtime.engines import Array, Engine, first_line
from penstock_runtime.joining import Trial
from penstock_serving.replica.call import Call

logger = logging.getLogger(__name__)

Outputs = dict[str, Array]

_FIRST_RUNS: Final = 4
_ONE_IN: Final = 256
"""Of the joint runs thereafter: what comparing costs is then below half a percent."""


@dataclass(slots=True)
class BatchRun:
    """A batch that ran: the outputs or the error of each member, and when."""

    members: tuple[Ticket[Call], ...]
    rows: int
    results: list[Outputs | Invalid]
    engine: int = 0
    """Which of those that run at once."""
    start_ns: int = 0
    end_ns: int = 0
    apart: str | None = None
    """Why requests must not be joined any more, where this run has shown it."""


class JointRuns:
    """Runs batches on one engine, from one thread at a time.

    Args:
        engine: what runs.
        trial: along which axes requests are joined, and what is rounding. Without axes, every batch has one member.
    """

    def __init__(self, engine: Engine, trial: Trial) -> None:
        self._engine = engine
        self._trial = trial
        self._joining = trial.joining or Joining()
        self._in = self._joining.inputs
        self._out = self._joining.outputs
        self._runs = 0
        self._largest = 0

    def run(self, step: BatchStep[Call]) -> BatchRun:
        """Run a batch. One that fails, or whose answer cannot be parted, is run again one by one. It never raises."""
        members = step.batch
        ran = BatchRun(members, step.rows, [], step.engine, time.monotonic_ns())
        if len(members) == 1:
            ran.results = [self._run_alone(members[0])]
        else:
            try:
                self._run_together(ran)
            except Exception as error:
                logger.exception("the answers of a batch could not be parted, by a defect of the replica")
                ran.apart = f"a batch of {step.rows} rows could not be parted: {first_line(error)}"
                ran.results = [self._run_alone(member) for member in members]
        ran.end_ns = time.monotonic_ns()
        return ran

    def _run_alone(self, member: Ticket[Call]) -> Outputs | Invalid:
        try:
            return self._engine.run(_inputs(member))
        except Exception as error:  # noqa: BLE001 -- an engine may raise anything; it must not take others' requests down
            return _failure(error)

    def _run_together(self, ran: BatchRun) -> None:
        members, rows = ran.members, ran.rows
        try:
            outputs = self._engine.run(join_rows([_inputs(member) for member in members], self._in))
        except Exception as error:  # noqa: BLE001 -- as in _run_alone
            logger.warning("a batch of %d requests failed (%s); running each alone", len(members), error)
            ran.results = [self._run_alone(member) for member in members]
            if not any(isinstance(each, Invalid) for each in ran.results):
                ran.apart = f"a batch of {rows} rows failed, but none of its requests alone: {first_line(error)}"
            return
        ran.apart = self._misfit(outputs, rows)
        if ran.apart is None:
            ran.results = self._part(outputs, members)
            if self._is_due(rows):
                ran.apart = self._compare(ran)
        if ran.apart is not None:
            ran.results = [self._run_alone(member) for member in members]

    def _misfit(self, outputs: Outputs, rows: int) -> str | None:
        for name, axis in self._out.items():
            if name not in outputs:
                return f"output '{name}' is missing for {rows} input rows"
            shape = outputs[name].shape
            if len(shape) <= axis or shape[axis] != rows:
                return f"output '{name}' has shape {list(shape)} for {rows} input rows"
        return None

    def _part(self, outputs: Outputs, members: tuple[Ticket[Call], ...]) -> list[Outputs | Invalid]:
        split: list[Outputs | Invalid] = []
        start = 0
        for member in members:
            stop = start + member.rows
            split.append({name: part_rows(outputs[name], axis, start, stop) for name, axis in self._out.items()})
            start = stop
        return split

    def _is_due(self, rows: int) -> bool:
        self._runs += 1
        if rows > self._largest:
            self._largest = rows
            return True
        return self._runs <= _FIRST_RUNS or self._runs % _ONE_IN == 0

    def _compare(self, ran: BatchRun) -> str | None:
        """What differs between the joint answer of a member and its own; None where nothing does."""
        index = self._runs % len(ran.members)
        mine = ran.results[index]
        request = ran.members[index].payload.request
        if self._trial.judge is None or request is None or isinstance(mine, Invalid):
            return None
        try:
            problem = self._trial.judge.compare_with_lone_run(self._engine, request.inputs, mine)
        except Exception as error:  # noqa: BLE001 -- as in _run_alone
            problem = f"a request fails alone: {first_line(error)}"
        return problem and f"a request's answer among {len(ran.members)} others was not its own: {problem}"


def _failure(error: Exception) -> Invalid:
    if isinstance(error, Invalid):
        return error
    return Invalid(Refusal.ENGINE_FAILED, f"the model failed on this input: {first_line(error)}")


def _inputs(member: Ticket[Call]) -> Mapping[str, Array]:
    request = member.payload.request
    if request is None:
        raise Invalid(Refusal.ENGINE_FAILED, "the request has gone")
    return request.inputs
