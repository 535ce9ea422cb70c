"""How a search ended: the verdict, what was chosen, and every figure that is reported. Pure: ledger in, report out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.api.optimization import Objective
from penstock.optimization.measurements import (
    AccuracyControl,
    AccuracyResult,
    Judgement,
    LoadPoint,
    OperatorShare,
    Ratio,
    Timing,
)
from penstock.optimization.progress import Figures
from penstock.optimization.recipes import Recipe
from penstock.optimization.report import CandidateReport, ControlReport, Outcome, SearchVerdict
from penstock.optimization.trials import SessionTrial, Trial
from penstock.optimization.variants import Infeasible
from penstock.serving.manifest import Capacity
from penstock_optimizer.search.capacity import capacity
from penstock_optimizer.search.constraints import company_in_words, result_in_words
from penstock_optimizer.search.decide import why_unsound
from penstock_optimizer.search.outcomes import (
    commonest_reason,
    ending,
    ending_under_load,
    is_enough,
    why_nobody_judged,
    words_of_gain,
)
from penstock_optimizer.search.standing import SearchPlan, Standing

_SERVES_ON = "the model itself serves on"


@dataclass(frozen=True)
class Conclusion:
    """What is said at the end of a search."""

    verdict: SearchVerdict
    summary: str
    chosen: Recipe | None
    candidates: tuple[CandidateReport, ...]
    controls: tuple[ControlReport, ...]
    capacity: Capacity | None
    """Of what was chosen, else of the model itself on ONNX Runtime."""
    figures: Figures | None
    """Where something was chosen."""
    judgements: tuple[Judgement, ...]
    accuracy_controls: tuple[AccuracyControl, ...]
    warnings: tuple[str, ...]


def conclude(plan: SearchPlan, ledger: Sequence[Trial]) -> Conclusion:
    """Read a ledger to which nothing more will be added."""
    standing = Standing(plan, ledger)
    chosen = choose(standing)
    reports = _reports(standing, chosen)
    verdict, summary = _verdict(standing, chosen, reports)
    served = chosen or standing.plain
    return Conclusion(
        verdict=verdict,
        summary=summary,
        chosen=chosen,
        candidates=reports,
        controls=_controls(standing),
        capacity=_capacity(standing, served.key),
        figures=_figures(standing, chosen) if chosen is not None else None,
        judgements=standing.judge.judgements if standing.judge is not None else (),
        accuracy_controls=standing.judge.controls if standing.judge is not None else (),
        warnings=(*_warnings(standing), *_lone_run_notes(standing, chosen)),
    )


def choose(standing: Standing) -> Recipe | None:
    """The best finalist by the objective that keeps every constraint and gains what is asked; None: no candidate does."""
    fit: list[tuple[tuple[float, float], Recipe]] = []
    for recipe in standing.passed:
        gain = standing.gain(recipe.key)
        if gain is not None and is_enough(standing, gain) and ending_under_load(standing, recipe.key) is None:
            variant = standing.variant(recipe.key)
            size = variant.size_bytes if variant is not None else 0
            fit.append(((gain.value, -size), recipe))
    return max(fit, key=lambda each: each[0])[1] if fit else None


def best_so_far(standing: Standing) -> tuple[Recipe, float] | None:
    """Who leads by the last session that can be believed, and its gain over ONNX Runtime fp32."""
    leader = next(iter(standing.passed or standing.leaders), None)
    gain = standing.gain(leader.key) if leader is not None else None
    return (leader, gain.value) if leader is not None and gain is not None else None


def _verdict(
    standing: Standing, chosen: Recipe | None, reports: Sequence[CandidateReport]
) -> tuple[SearchVerdict, str]:
    if chosen is not None:
        return SearchVerdict.ACCEPTED, _acceptance_in_words(standing, chosen)
    undecided = _why_undecided(standing, reports)
    if undecided is not None:
        return SearchVerdict.NO_DECISION, f"No decision: {undecided}; {_SERVES_ON}."
    if not standing.plan.candidates:
        return SearchVerdict.REJECTED, f"The profile has nothing to try: {_SERVES_ON}."
    counts = _outcomes_in_words([each.outcome for each in reports])
    if all(each.outcome in (Outcome.BASELINE, Outcome.INFEASIBLE) for each in reports):
        return (
            SearchVerdict.REJECTED,
            f"Nothing that the profile asks for can be done here ({commonest_reason(reports)}): {_SERVES_ON}.",
        )
    return SearchVerdict.REJECTED, f"No candidate is better and keeps every constraint ({counts}): {_SERVES_ON}."


def _why_undecided(standing: Standing, reports: Sequence[CandidateReport]) -> str | None:
    """Why nothing can be said of whether a candidate is better; None where it can."""
    broken = why_unsound(standing)
    if broken is not None:
        return broken
    outcomes = [each.outcome for each in reports]
    if Outcome.UNDECIDED in outcomes:
        return _controls_in_words(standing)
    if Outcome.NOT_CERTIFIED in outcomes:
        first = next(each for each in reports if each.outcome is Outcome.NOT_CERTIFIED)
        return f"{first.recipe.label}: {first.reason}"
    untried = outcomes.count(Outcome.OUT_OF_BUDGET)
    nobody = why_nobody_judged(standing, reports)
    if untried or standing.plan.baselines[-1].key not in standing.builds:
        minutes = f"{standing.plan.budget_seconds / 60:.3g} minutes"
        ran_out = f"the budget of {minutes} ran out before {untried} of the candidates were tried to the end"
        return f"{ran_out}, and {nobody}" if nobody is not None else f"{ran_out}: give more minutes"
    return nobody


def _outcomes_in_words(outcomes: Sequence[Outcome]) -> str:
    words = {
        Outcome.NO_GAIN: "without enough gain",
        Outcome.ACCURACY_LOST: "lost accuracy",
        Outcome.CONSTRAINT_BROKEN: "over a limit",
        Outcome.INFEASIBLE: "infeasible here",
        Outcome.BROKEN: "broken",
        Outcome.SLOWER: "slower than others",
    }
    counts = [f"{outcomes.count(outcome)} {text}" for outcome, text in words.items() if outcome in outcomes]
    return ", ".join(counts)


def _controls_in_words(standing: Standing) -> str:
    session = next((each for each in reversed(standing.sessions) if not standing.holds(each)), None)
    found = standing.controls_of(session) if session is not None else ()
    failed = [f"{each.name} read {each.ratio.value:.2f}" for each in found if not each.passed]
    return f"the controls failed ({', '.join(failed) or 'a control did not run'}), so the machine is too noisy to tell"


def _acceptance_in_words(standing: Standing, chosen: Recipe) -> str:
    gain = standing.gain(chosen.key)
    parts = [words_of_gain(standing, gain)] if gain is not None else []
    for name, ratio in _first_speedups(standing, chosen.key).items():
        if name != standing.plain.label:
            parts.append(f"{ratio.value:.2f}x {name} in CPU time")
    trial = standing.tests.get(chosen.key)
    if trial is not None and trial.result is not None:
        parts.append(f"{_certainty_in_words(trial.result)}{company_in_words(standing.company(chosen.key))}")
    return f"{chosen.label}: {'; '.join(parts)}."


def _certainty_in_words(result: AccuracyResult) -> str:
    bound = f"a loss of at most {max(result.loss_bound, 0.0) * 100:.2g} points at {result.confidence:.0%} confidence"
    return f"{result_in_words(result)}, {bound}"


def _first_speedups(standing: Standing, key: str) -> dict[str, Ratio]:
    session = standing.last_session
    if session is None:
        return {}
    found = {each.label: standing.speedup_over(each.key, key, session) for each in standing.running_baselines}
    return {name: ratio for name, ratio in found.items() if ratio is not None}


def _reports(standing: Standing, chosen: Recipe | None) -> tuple[CandidateReport, ...]:
    """Baselines first, then by the objective; what was not measured goes last."""
    baselines = [_report(standing, each, _baseline_ending(standing, each)) for each in standing.plan.baselines]
    session = standing.last_session

    def order(recipe: Recipe) -> tuple[int, float]:
        gain = standing.gain(recipe.key) if session is not None else None
        return (0 if recipe == chosen else 1 if recipe in standing.passed else 2), -(gain.value if gain else 0.0)

    candidates = sorted(standing.plan.candidates, key=order)
    return (*baselines, *(_report(standing, each, ending(standing, each, chosen)) for each in candidates))


def _baseline_ending(standing: Standing, recipe: Recipe) -> tuple[Outcome, str]:
    if standing.variant(recipe.key) is None and recipe.key in standing.builds:
        built = standing.builds[recipe.key].built
        return Outcome.BROKEN, built.reason if isinstance(built, Infeasible) else getattr(built, "message", "")
    if recipe == standing.plain:
        return Outcome.BASELINE, "the model itself, as it serves unless something is chosen"
    return Outcome.BASELINE, "the model itself, as its framework runs it"


def _report(standing: Standing, recipe: Recipe, ended: tuple[Outcome, str]) -> CandidateReport:
    outcome, reason = ended
    variant = standing.variant(recipe.key)
    gate, test, load = standing.gates.get(recipe.key), standing.tests.get(recipe.key), standing.loads.get(recipe.key)
    return CandidateReport(
        recipe=recipe,
        outcome=outcome,
        reason=reason,
        size_bytes=variant.size_bytes if variant is not None else None,
        weight_precision=variant.weight_precision if variant is not None else "",
        notes=variant.notes if variant is not None else (),
        figures=variant.figures if variant is not None else {},
        timings=tuple(timing for _, timing in _timings(standing, recipe.key)),
        speedups=_speedups(standing, recipe.key) if recipe not in standing.plan.baselines else {},
        gate=gate.result if gate is not None else None,
        accuracy=test.result if test is not None else None,
        load=load.load if load is not None else None,
    )


def _timings(standing: Standing, key: str) -> list[tuple[SessionTrial, Timing]]:
    """The last timing at each batch size, where the controls held; the first batch size first."""
    found: list[tuple[SessionTrial, Timing]] = []
    for size in standing.plan.spec.workload.batch_sizes:
        sessions = sorted(
            (each for each in standing.sessions if each.batch_size == size and standing.holds(each)),
            key=lambda each: (each.rung, each.attempt),
        )
        timed = [(each, timing) for each in sessions if (timing := standing.timing(key, each)) is not None]
        found += timed[-1:]
    return found


def _speedups(standing: Standing, key: str) -> dict[str, Ratio]:
    return {
        f"{baseline.label}, batch {session.batch_size}": ratio
        for session, _ in _timings(standing, key)
        for baseline in standing.running_baselines
        if (ratio := standing.speedup_over(baseline.key, key, session)) is not None
    }


def _controls(standing: Standing) -> tuple[ControlReport, ...]:
    return tuple(control for session in standing.sessions for control in standing.controls_of(session))


def _capacity(standing: Standing, key: str) -> Capacity | None:
    trial = standing.loads.get(key)
    if trial is None or not trial.curve:
        return None
    return capacity(trial.curve, standing.plan.bound_milliseconds, trial.load)


def _figures(standing: Standing, chosen: Recipe) -> Figures:
    baseline = standing.baseline
    session = standing.last_session
    before = standing.timing(baseline.key, session) if session is not None else None
    after = standing.timing(chosen.key, session) if session is not None else None
    loads = [_load_of(standing, each.key) for each in (baseline, chosen)]
    variants = [standing.variant(each.key) for each in (baseline, chosen)]
    test = standing.tests[chosen.key].result if chosen.key in standing.tests else None
    timed = (before, after) if before is not None and after is not None else None
    loaded = (loads[0], loads[1]) if loads[0] is not None and loads[1] is not None else None
    built = (variants[0], variants[1]) if variants[0] is not None and variants[1] is not None else None
    return Figures(
        baseline=baseline.label,
        speedups={name: ratio.value for name, ratio in _first_speedups(standing, chosen.key).items()},
        latency_p50_milliseconds=(timed[0].wall_milliseconds_p50, timed[1].wall_milliseconds_p50) if timed else None,
        latency_p99_milliseconds=(timed[0].wall_milliseconds_p99, timed[1].wall_milliseconds_p99) if timed else None,
        requests_per_second=(loaded[0].requests_per_second, loaded[1].requests_per_second) if loaded else None,
        size_bytes=(built[0].size_bytes, built[1].size_bytes) if built else None,
        memory_bytes=(timed[0].peak_memory_bytes, timed[1].peak_memory_bytes) if timed else None,
        metric=test.metric if test is not None else None,
        accuracy=(test.baseline, test.candidate) if test is not None else None,
        cpu_seconds_per_request=(loaded[0].cpu_seconds_per_request, loaded[1].cpu_seconds_per_request)
        if loaded
        else None,
    )


def _load_of(standing: Standing, key: str) -> LoadPoint | None:
    trial = standing.loads.get(key)
    return trial.load if trial is not None else None


def _warnings(standing: Standing) -> tuple[str, ...]:
    found: list[str] = []
    controls = standing.judge.controls if standing.judge is not None else ()
    silent = dict.fromkeys(f"'{each.output}'" for each in controls if each.output and not each.told)
    if silent and all(each.told for each in controls if not each.output):
        found.append(
            f"The data says little of {', '.join(silent)}: ruined on purpose, it would not show. The other outputs decide."
        )
    if not standing.plan.spec.constraints.accuracy.certify:
        found.append("Accuracy was not certified: the profile is content with the point estimate.")
    others = [each for each in standing.sessions if each.batch_size != standing.first_batch]
    found += [
        f"The controls at batch {each.batch_size} failed: its figures were left out."
        for each in others
        if not standing.holds(each)
    ]
    if standing.plan.spec.objective is Objective.ENERGY and not standing.joules_known:
        found.append("This machine tells no joules: CPU time of a request decided, and no energy is claimed as saved.")
    return tuple(found)


def _lone_run_notes(standing: Standing, chosen: Recipe | None) -> tuple[str, ...]:
    """What it costs that a variant's requests cannot be joined, where it carries less so than the model itself."""
    if chosen is None or not standing.runs_alone(chosen.key):
        return ()
    before, after = (_load_of(standing, each.key) for each in (standing.plain, chosen))
    if before is None or after is None or after.requests_per_second >= before.requests_per_second:
        return ()
    note = (
        f"With each request in a run of its own a replica carries {after.requests_per_second:,.0f} requests a second, where the "
        f"model itself carries {before.requests_per_second:,.0f}: the objective Throughput would count that."
    )
    return (note,)


def with_operators(
    candidates: Sequence[CandidateReport], shares: dict[str, tuple[OperatorShare, ...]]
) -> tuple[CandidateReport, ...]:
    """Candidates with their operators' shares of time, by recipe key."""
    return tuple(each.model_copy(update={"operators": shares.get(each.recipe.key, ())}) for each in candidates)
