"""What a search does next: a pure function of its plan, its ledger and the time that has gone.

Build and gate each recipe in turn, baselines first; measure what passed in rungs, of which each keeps the better half;
test the leaders in full until enough have passed; load those; conclude. A stage is over once a later one has begun, so
that a search that was killed and goes on decides as one that was not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.api.optimization import Strategy
from penstock.optimization.measurements import Judgement, Role
from penstock.optimization.recipes import Recipe
from penstock.optimization.trials import Stage, Trial
from penstock.optimization.variants import Infeasible
from penstock_optimizer.search.constraints import why_untold
from penstock_optimizer.search.standing import MAX_ATTEMPTS, SearchPlan, Standing

_BUILD_SHARE: Final = 0.6
"""Of the budget: what is not built by then is not tried, so that what is built can be measured."""
_LONGER: Final = 2.0
"""How much longer each further attempt of a session takes."""
_GATE_SAMPLES: Final = 64
"""Figures of likeness differ little between samples."""
_GATE_SAMPLES_LABELLED: Final = 256
"""Right or wrong says little of each."""


@dataclass(frozen=True)
class _Length:
    """How long sessions and load tests take."""

    rounds: int
    seconds: float
    """Of each contestant in a round of the last rung."""
    former_share: float
    """Of it, in the rungs before."""
    load_seconds: float


_MORE_ROUNDS: Final = 6
"""Of each further session."""
_LENGTHS: Final = {
    Strategy.RAPID: _Length(rounds=9, seconds=0.12, former_share=0.5, load_seconds=3.0),
    Strategy.THOROUGH: _Length(rounds=15, seconds=0.3, former_share=0.34, load_seconds=12.0),
}


@dataclass(frozen=True)
class Build:
    """Build a recipe."""

    recipe: Recipe


@dataclass(frozen=True)
class JudgeOutputs:
    """Choose by what candidates are judged, and see whether that can tell a ruined one."""

    baseline: Recipe
    samples: int


@dataclass(frozen=True)
class Gate:
    """Compare a recipe with the baseline on few samples."""

    recipe: Recipe
    baseline: Recipe
    samples: int
    judgements: tuple[Judgement, ...] = ()


@dataclass(frozen=True)
class Entrant:
    """Who takes part in a session, and what for."""

    role: Role
    recipe: Recipe
    """For the negative control: what it is made from."""


@dataclass(frozen=True)
class MeasureSession:
    """Measure contestants against each other at one batch size."""

    rung: int
    attempt: int
    batch_size: int
    rounds: int
    seconds_per_round: float
    entrants: tuple[Entrant, ...]


@dataclass(frozen=True)
class Certify:
    """Compare a recipe with the baseline on the whole test split."""

    recipe: Recipe
    baseline: Recipe
    judgements: tuple[Judgement, ...] = ()


@dataclass(frozen=True)
class LoadTest:
    """Load a recipe in the profile's scenario."""

    recipe: Recipe
    seconds: float
    alone: bool = False
    """Each request in a run of its own, since others would change its answer."""


@dataclass(frozen=True)
class Conclude:
    """There is nothing more to try."""


Action = Build | JudgeOutputs | Gate | MeasureSession | Certify | LoadTest | Conclude


def decide(plan: SearchPlan, ledger: Sequence[Trial], elapsed_seconds: float) -> Action:
    """What to do next.

    Args:
        plan: what was asked for.
        ledger: all trials so far, in order.
        elapsed_seconds: since the search began, what came before a kill included.

    Returns:
        One trial to run, whose result goes to the end of the ledger; or that there is nothing more to try.
    """
    standing = Standing(plan, ledger)
    if elapsed_seconds >= plan.budget_seconds:
        return Conclude()
    build_deadline = plan.budget_seconds * _BUILD_SHARE
    stages = (
        _settle_baselines(standing),
        _admit_candidates(standing, enough=elapsed_seconds >= build_deadline),
        _measure(standing),
        _certify(standing),
        _load(standing),
    )
    return next((action for action in stages if action is not None), Conclude())


def stage_of(action: Action) -> Stage:
    """The stage that an action belongs to."""
    match action:
        case Build():
            return Stage.BUILD
        case JudgeOutputs() | Gate():
            return Stage.GATE
        case MeasureSession():
            return Stage.MEASURE
        case Certify():
            return Stage.CERTIFY
        case LoadTest():
            return Stage.LOAD
        case Conclude():
            return Stage.PUBLISH


def why_unsound(standing: Standing) -> str | None:
    """Why the baselines allow no search; None where they do, or are not there yet."""
    plain = standing.plain
    trial = standing.builds.get(plain.key)
    if trial is not None and standing.variant(plain.key) is None:
        why = trial.built.reason if isinstance(trial.built, Infeasible) else getattr(trial.built, "message", "")
        if standing.plan.synthetic:
            return f"the samples were made up, since none were given, and do not suit the model ({why}): give --data"
        return f"the model does not run on ONNX Runtime, which every comparison needs: {why}"
    judge = standing.judge
    if judge is not None:
        problem = judge.problem or why_untold(standing.plan.spec.constraints.accuracy, judge.controls)
        if problem is not None:
            return problem
    failure = standing.gate_failure(plain.key)
    if failure is not None:
        return f"the ONNX form of the model does not compute what the model itself does: {failure}"
    return None


def _settle_baselines(standing: Standing) -> Action | None:
    for recipe in standing.plan.baselines:
        if recipe.key not in standing.builds:
            return Build(recipe)
    plain, baseline = standing.plain, standing.baseline
    if why_unsound(standing) is not None:
        return Conclude()
    if standing.judge is None and standing.plan.candidates:
        return JudgeOutputs(baseline, _gate_samples(standing))
    if why_unsound(standing) is None and baseline != plain and plain.key not in standing.gates:
        return _gate(standing, plain)
    return Conclude() if why_unsound(standing) is not None else None


def _admit_candidates(standing: Standing, *, enough: bool) -> Action | None:
    """The next recipe to build, or one that was built and still has to pass the gate."""
    if standing.sessions or standing.tests or standing.loads:
        return None
    for recipe in standing.plan.candidates:
        if standing.variant(recipe.key) and recipe.key not in standing.gates:
            return _gate(standing, recipe)
        if recipe.key not in standing.builds and not enough:
            return Build(recipe)
    return None


def _gate(standing: Standing, recipe: Recipe) -> Gate:
    return Gate(recipe, standing.baseline, _gate_samples(standing), _judgements(standing))


def _gate_samples(standing: Standing) -> int:
    return _GATE_SAMPLES_LABELLED if standing.plan.labelled else _GATE_SAMPLES


def _judgements(standing: Standing) -> tuple[Judgement, ...]:
    return standing.judge.judgements if standing.judge is not None else ()


def _measure(standing: Standing) -> Action | None:
    """The next session: a rung's first, the same again where its controls failed, or the last rung's other batch sizes."""
    if standing.tests or standing.loads or not standing.admitted:
        # With nothing to compare, the baselines need no session: the load test has their figures.
        return None
    first = standing.first_batch
    rung = 0
    while True:
        session = standing.session(rung, first)
        entrants = standing.entrants(rung)
        last = len(entrants) <= standing.few
        if session is None:
            return _session(standing, entrants, rung, 0, first, last=last) if entrants else None
        if not standing.holds(session):
            again = session.attempt + 1
            return _session(standing, entrants, rung, again, first, last=last) if again < MAX_ATTEMPTS else None
        if last:
            break
        rung += 1
    # At the other batch sizes only those are measured that may be chosen.
    leaders = standing.leaders[: standing.plan.spec.search.finalists]
    others = (size for size in standing.plan.spec.workload.batch_sizes[1:] if standing.session(rung, size) is None)
    size = next(others, None)
    return _session(standing, leaders, rung, 0, size, last=True) if size is not None and leaders else None


def _session(
    standing: Standing, entrants: Sequence[Recipe], rung: int, attempt: int, batch_size: int, *, last: bool
) -> MeasureSession:
    length = _LENGTHS[standing.plan.spec.search.strategy]
    longer = _LONGER**attempt * (1 if last else length.former_share)
    baseline, plain = standing.baseline, standing.plain
    fixed = [Entrant(Role.BASELINE, baseline)]
    if plain != baseline:
        fixed.append(Entrant(Role.SECOND_BASELINE, plain))
    fixed += [Entrant(Role.SAME_AGAIN, baseline), Entrant(Role.NEGATIVE_CONTROL, plain)]
    return MeasureSession(
        rung=rung,
        attempt=attempt,
        batch_size=batch_size,
        rounds=length.rounds + _MORE_ROUNDS * attempt,
        seconds_per_round=length.seconds * longer,
        entrants=(*fixed, *(Entrant(Role.CANDIDATE, each) for each in entrants)),
    )


def _certify(standing: Standing) -> Action | None:
    if standing.loads:
        return None
    wanted = standing.plan.spec.search.finalists
    for recipe in standing.leaders:
        if len(standing.passed) >= wanted:
            return None
        if recipe.key not in standing.tests:
            return Certify(recipe, standing.baseline, _judgements(standing))
    return None


def _load(standing: Standing) -> Action | None:
    """Baselines are loaded too, also alone: what serves on needs its capacity."""
    seconds = _LENGTHS[standing.plan.spec.search.strategy].load_seconds
    finalists = standing.passed[: standing.plan.spec.search.finalists]
    for recipe in (standing.plain, *finalists, *standing.running_baselines):
        if recipe.key not in standing.loads:
            return LoadTest(recipe, seconds, standing.runs_alone(recipe.key))
    return None
