"""The runs that prove a candidate, and what they must show."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from penstock.engines import ENGINES
from penstock.optimization.recipes import EngineSettings
from penstock.serving.joining import Joining
from penstock.serving.rows import join_rows
from penstock_runtime.engines import Array, Engine, first_line
from penstock_runtime.joining.candidates import Axes, AxisNames
from penstock_runtime.joining.inputs import LENGTHS, NUMBERS_AS_TEXT, TEXT, Lengths, Values, lengths, nudge, request
from penstock_runtime.joining.judge import AnswerComparer, Outputs
from penstock_runtime.joining.plan import BRIEF, CORE, CORE_RUNS, FURTHER_RUNS, MEMBERS, Member, members_filling, sizes

_FURTHER_SECONDS: Final = 1.0
"""Past this nothing is tried that the proof does not need."""
_OTHER_LENGTHS: Final = (5, 16, 64)
_EXTREMES: Final = (1000, 128, 32, 8, 3)
_FEW: Final = 3
"""Requests of a run that are told one by one."""


class NotProved(Exception):
    """A candidate failed, for this reason."""


class NotRun(Exception):
    """The model did not take the trial's requests, for this reason."""


@dataclass
class Runs:
    """The engine, with a count and a deadline."""

    engine: Engine
    deadline: float
    count: int = 0
    seconds: float = 0.0
    """That runs have taken."""

    def run(self, inputs: Mapping[str, Array]) -> Outputs:
        """Run once.

        Raises:
            NotRun: the time is up, or the model refuses.
        """
        if time.monotonic() > self.deadline:
            raise NotProved(f"not proved in the time that a trial may take ({self.count} runs)")
        self.count += 1
        began = time.monotonic()
        try:
            return self.engine.run(inputs)
        except Exception as error:  # an engine may raise anything
            raise NotRun(first_line(error)) from error
        finally:
            self.seconds += time.monotonic() - began

    @property
    def late(self) -> bool:
        """Whether runs have taken as long as they may."""
        return self.seconds > _FURTHER_SECONDS

    def would_be_late(self, rows: int) -> bool:
        """Whether they would have, after a run of so many rows."""
        return self.seconds + rows * self.seconds / max(self.count, 1) > 2 * _FURTHER_SECONDS

    def try_run(self, inputs: Mapping[str, Array]) -> Outputs | None:
        """The answer, or None where the model refuses."""
        try:
            return self.run(inputs)
        except NotRun:
            return None


@dataclass
class Requests:
    """The trial's requests on one candidate, with one set of lengths, and their lone answers."""

    make: Callable[[Member], dict[str, Array]]
    runs: Runs
    made: dict[str, dict[str, Array]] = field(default_factory=dict)
    answers: dict[str, Outputs | None] = field(default_factory=dict)

    def inputs(self, name: str) -> dict[str, Array]:
        """Of a request."""
        if name not in self.made:
            self.made[name] = self.make(MEMBERS[name])
        return self.made[name]

    def answer(self, name: str) -> Outputs | None:
        """The model's answer to a request alone; None where it refuses it."""
        if name not in self.answers:
            self.answers[name] = self.runs.try_run(self.inputs(name))
        return self.answers[name]


@dataclass
class Proof:
    """Tries candidates on one model."""

    engine: Engine
    settings: EngineSettings
    names: AxisNames
    max_rows: int
    runs: Runs

    def prove(self, axes: Axes) -> tuple[Joining, AnswerComparer]:
        """The joining along these axes of the inputs, and what judged it.

        Raises:
            NotProved: answers differ, or an output counts no rows.
            NotRun: the model takes none of the trial's requests.
        """
        judge = AnswerComparer(self.engine.signature.outputs, self.settings.precision)
        base, values, spread = self._find_accepted(axes)
        open_axes = self._lengths(axes, base, spread=spread)
        values = self._widen_ids(axes, open_axes, values)
        requests = self._ask(axes, open_axes, values)
        self._repeat(requests, judge)
        outputs = self._outputs(requests, axes, judge)
        told = [answer for answer in requests.answers.values() if answer is not None]
        if judge.are_all_alike(told, outputs):
            raise NotProved("the model answers all that the trial sends alike: that proves nothing")
        for names in CORE_RUNS:
            self._compare(requests, axes, outputs, judge, names)
        self._try_further(requests, axes, outputs, judge)
        if not self.runs.late:
            self._try_other_lengths(axes, outputs, judge, values, base)
        if judge.untold:
            raise NotProved(
                f"output '{judge.untold[0]}' is empty or NaN for all that the trial sends: that proves nothing"
            )
        return Joining(inputs=dict(axes), outputs=outputs, ragged=self._runs_ragged(requests, axes)), judge

    @property
    def _has_ids(self) -> bool:
        return any(spec.datatype in ("INT32", "INT64") for spec in self.engine.signature.inputs)

    def _lengths(self, axes: Axes, base: int, *, spread: bool) -> Lengths:
        return lengths(self.engine.signature, self.names, axes, base, spread=spread)

    def _make_request(self, axes: Axes, open_axes: Lengths, values: Values, member: Member) -> dict[str, Array]:
        return request(
            self.engine.signature, axes, open_axes,
            name=member.name, fill=member.fill, rows=member.rows, values=values,
        )  # fmt: skip

    def _find_accepted(self, axes: Axes) -> tuple[int, Values, bool]:
        """Lengths and values that the model takes."""
        first: NotRun | None = None
        tried: list[Lengths] = []
        for base in LENGTHS:
            for spread in (True, False):
                open_axes = self._lengths(axes, base, spread=spread)
                if open_axes in tried:
                    continue
                tried.append(open_axes)
                for values in (TEXT, NUMBERS_AS_TEXT):
                    try:
                        self.runs.run(self._make_request(axes, open_axes, values, MEMBERS["a"]))
                    except NotRun as why:
                        first = first or why
                    else:
                        return base, values, spread
                    if not any(spec.datatype == "BYTES" for spec in self.engine.signature.inputs):
                        break
        assert first is not None  # noqa: S101 -- at least one was tried
        raise NotRun(f"the model takes none of the trial's requests: {first}") from first

    def _widen_ids(self, axes: Axes, open_axes: Lengths, values: Values) -> Values:
        """With the largest ids that the model takes, where its engine is known to look."""
        if not ENGINES[self.settings.name].checks_ids or not self._has_ids:
            return values
        for extreme in _EXTREMES:
            wider = replace(values, extreme=extreme, most=max(values.most, extreme // 10))
            if self.runs.try_run(self._make_request(axes, open_axes, wider, MEMBERS["wide"])) is not None:
                return wider
        return values

    def _ask(self, axes: Axes, open_axes: Lengths, values: Values) -> Requests:
        """The requests of the core, and their lone answers; those that the model refuses are left out."""
        requests = Requests(lambda member: self._make_request(axes, open_axes, values, member), self.runs)
        missing = [each.name for each in CORE if requests.answer(each.name) is None and each.name in ("a", "b")]
        if missing:
            raise NotProved("the model takes a request of 1 row, and refuses one of 2")
        return requests

    def _repeat(self, requests: Requests, judge: AnswerComparer) -> None:
        """The same request again, and one that is the same but for the last digits."""
        answer, inputs = requests.answer("b"), requests.inputs("b")
        assert answer is not None  # noqa: S101 -- `_ask` has seen to it
        problem = judge.compare(answer, self.runs.run(inputs))
        if problem is not None:
            raise NotProved(f"it gives two answers to the same request: {problem}")
        moved = nudge(inputs, self.engine.signature)
        other = None if moved is None else self.runs.try_run(moved)
        if other is not None:
            judge.learn(answer, other)

    def _run_jointly(self, requests: Requests, axes: Axes, names: Sequence[str]) -> Outputs:
        try:
            return self.runs.run(join_rows([requests.inputs(name) for name in names], axes))
        except NotRun as why:
            raise NotProved(f"it takes requests alone, but not together: {why}") from why

    def _outputs(self, requests: Requests, axes: Axes, judge: AnswerComparer) -> dict[str, int]:
        """On which axis each output counts rows."""
        lone = requests.answer("a")
        assert lone is not None  # noqa: S101 -- `_ask` has seen to it
        joint = self._run_jointly(requests, axes, ("a", "b"))
        found = judge.axes(lone, 1, joint, 3)
        if isinstance(found, str):
            raise NotProved(found)
        self._compare_parts(requests, found, judge, ("a", "b"), joint)
        return found

    def _compare(
        self, requests: Requests, axes: Axes, outputs: Mapping[str, int], judge: AnswerComparer, names: Sequence[str]
    ) -> None:
        """Run requests together, without those that the model does not take alone."""
        if "wide" in names and not self._has_ids:
            return
        names = [name for name in names if not MEMBERS[name].judged or requests.answer(name) is not None]
        try:
            joint = self._run_jointly(requests, axes, names)
        except NotProved:
            taken = [name for name in names if requests.answer(name) is not None]
            if taken == names:
                raise
            names, joint = taken, self._run_jointly(requests, axes, taken)
        self._compare_parts(requests, outputs, judge, names, joint)

    def _compare_parts(
        self,
        requests: Requests,
        outputs: Mapping[str, int],
        judge: AnswerComparer,
        names: Sequence[str],
        joint: Outputs,
    ) -> None:
        """Look at each part of a joint answer that is judged."""
        total = sum(MEMBERS[name].rows for name in names)
        for spec in self.engine.signature.outputs:
            shape = joint[spec.name].shape
            if shape[outputs[spec.name] :][:1] != (total,):
                raise NotProved(f"output '{spec.name}' has shape {list(shape)} for {total} rows")
        start = 0
        for place, name in enumerate(names):
            rows, lone = MEMBERS[name].rows, requests.answer(name) if MEMBERS[name].judged else None
            problem = None if lone is None else judge.compare_part(lone, joint, outputs, start, rows)
            if problem is not None:
                raise NotProved(
                    f"requests that run together change each other's answers: {problem}, {_describe_neighbours(names, place)}"
                )
            start += rows

    def _try_further(self, requests: Requests, axes: Axes, outputs: Mapping[str, int], judge: AnswerComparer) -> None:
        """More numbers of rows and more neighbours, as far as the time goes that a start may take for them."""
        for rows in sizes(self.max_rows):
            names = members_filling(rows, [name for name, answer in requests.answers.items() if answer is not None])
            if names and not self.runs.would_be_late(rows):
                self._compare(requests, axes, outputs, judge, names)
        for each in FURTHER_RUNS:
            if self.runs.late:
                return
            self._compare(requests, axes, outputs, judge, each)

    def _try_other_lengths(
        self, axes: Axes, outputs: Mapping[str, int], judge: AnswerComparer, values: Values, base: int
    ) -> None:
        """The axes beside the batch have other lengths, too."""
        if not self._lengths(axes, base, spread=False):
            return
        for other in _OTHER_LENGTHS:
            if other == base:
                continue
            open_axes = self._lengths(axes, other, spread=False)
            if self.runs.try_run(self._make_request(axes, open_axes, values, MEMBERS["a"])) is None:
                continue
            requests = self._ask(axes, open_axes, values)
            for names in BRIEF:
                self._compare(requests, axes, outputs, judge, names)
            return

    def _runs_ragged(self, requests: Requests, axes: Axes) -> bool:
        """Whether inputs of different numbers of rows run."""
        if len(axes) < 2:  # noqa: PLR2004 -- of one input there is nothing to differ
            return False
        first, *rest = axes
        one, many = requests.inputs("a"), requests.inputs("b")
        mixes = (
            {first: one[first]} | {name: many[name] for name in rest},
            {first: many[first]} | {name: one[name] for name in rest},
        )
        return any(self.runs.try_run(each) is not None for each in mixes)


def _describe_neighbours(names: Sequence[str], place: int) -> str:
    others = [name for index, name in enumerate(names) if index != place]
    return (
        f"beside {', '.join(dict.fromkeys(MEMBERS[name].fill.value for name in others))} values"
        if len(names) <= _FEW
        else f"among {len(names)} requests"
    )
