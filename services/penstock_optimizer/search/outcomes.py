"""Where each candidate ended, and why, in a sentence with the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from penstock.api.optimization import Objective
from penstock.optimization.measurements import Ratio
from penstock.optimization.recipes import Recipe
from penstock.optimization.report import CandidateReport, Outcome
from penstock.optimization.trials import SessionTrial
from penstock.optimization.variants import Broken, Infeasible, Variant
from penstock_optimizer.search.constraints import company_in_words, result_in_words
from penstock_optimizer.search.decide import why_unsound
from penstock_optimizer.search.standing import Standing

Ending = tuple[Outcome, str]

_OUT_OF_BUDGET = "the budget ran out before "


def ending(standing: Standing, recipe: Recipe, chosen: Recipe | None) -> Ending:
    """Where a candidate ended.

    Args:
        standing: of the search that is over.
        recipe: of the candidate.
        chosen: what was chosen in the end.
    """
    early = _ending_before_measuring(standing, recipe)
    if early is not None:
        return early
    session = standing.last_session
    if session is None:
        return _ending_unmeasured(standing, recipe)
    if recipe not in standing.entrants(session.rung):
        return _ending_left_behind(standing, recipe)
    return _ending_measured(standing, recipe, session, chosen)


def words_of_gain(standing: Standing, gain: Ratio) -> str:
    """A gain over ONNX Runtime fp32, with its interval."""
    interval = "" if gain.low == gain.high else f" ({gain.low:.2f} to {gain.high:.2f})"
    return f"{gain.value:.2f}x ONNX Runtime fp32 in {figure(standing)}{interval}"


def figure(standing: Standing) -> str:
    """The objective's figure in words."""
    match standing.plan.spec.objective:
        case Objective.LATENCY:
            return f"CPU time of a run at batch {standing.first_batch}"
        case Objective.THROUGHPUT:
            return "requests a second and core under load"
        case Objective.MEMORY:
            return "peak memory"
        case Objective.ENERGY if standing.joules_known:
            return f"energy of a run at batch {standing.first_batch}"
        case Objective.COST | Objective.ENERGY:
            return "CPU time of a request under load"


def _ending_before_measuring(standing: Standing, recipe: Recipe) -> Ending | None:
    trial = standing.builds.get(recipe.key)
    if trial is None:
        return _ending_unbuilt(standing)
    match trial.built:
        case Infeasible():
            return Outcome.INFEASIBLE, f"{trial.built.part}: {trial.built.reason}"
        case Broken():
            return Outcome.BROKEN, f"{trial.built.part}: {trial.built.message}"
        case Variant():
            pass
    gate = standing.gates.get(recipe.key)
    if gate is None:
        return Outcome.OUT_OF_BUDGET, f"{_OUT_OF_BUDGET}its accuracy was looked at"
    failure = standing.gate_failure(recipe.key)
    if failure is not None:
        return (Outcome.BROKEN if gate.result is None else Outcome.ACCURACY_LOST), failure
    return None


def _ending_unbuilt(standing: Standing) -> Ending:
    if why_unsound(standing) is not None:
        return Outcome.UNDECIDED, "it was not tried, since nothing could be decided: the summary says why"
    return Outcome.OUT_OF_BUDGET, f"{_OUT_OF_BUDGET}it was built"


def _ending_unmeasured(standing: Standing, recipe: Recipe) -> Ending:
    problem = next((each.problems[recipe.key] for each in standing.sessions if recipe.key in each.problems), None)
    if problem is not None:
        return Outcome.BROKEN, problem
    if standing.sessions:
        return Outcome.UNDECIDED, "the controls of its measurement failed, so nothing is said of its speed"
    return Outcome.OUT_OF_BUDGET, f"{_OUT_OF_BUDGET}it was measured"


def _ending_left_behind(standing: Standing, recipe: Recipe) -> Ending:
    """It took part in an earlier rung only."""
    rungs = [each for each in standing.sessions if recipe.key in each.problems or standing.timing(recipe.key, each)]
    last = max(rungs, key=lambda each: (each.rung, each.attempt), default=None)
    if last is None:
        return Outcome.OUT_OF_BUDGET, f"{_OUT_OF_BUDGET}it was measured"
    if recipe.key in last.problems:
        return Outcome.BROKEN, last.problems[recipe.key]
    gain = standing.measured_gain(recipe.key, last)
    reached = f"{words_of_gain(standing, gain)}; " if gain is not None and not standing.by_load else ""
    if gain is not None and not standing.by_load and not is_enough(standing, gain):
        return Outcome.NO_GAIN, _shortfall_in_words(standing, gain)
    return Outcome.SLOWER, f"{reached}others did better in round {last.rung + 1}"


def _ending_measured(standing: Standing, recipe: Recipe, session: SessionTrial, chosen: Recipe | None) -> Ending:
    gain = standing.measured_gain(recipe.key, session)
    if gain is None:
        return Outcome.BROKEN, session.problems.get(recipe.key, "it was not measured")
    memory = standing.memory_problem(recipe.key)
    if memory is not None:
        return Outcome.CONSTRAINT_BROKEN, memory
    if not standing.is_worthwhile(recipe.key, session):
        return Outcome.NO_GAIN, _shortfall_in_words(standing, gain)
    if recipe.key not in standing.tests:
        return _ending_untested(standing, gain)
    failure = standing.test_failure(recipe.key)
    if failure is not None:
        return failure
    return _ending_of_finalist(standing, recipe, chosen)


def _ending_untested(standing: Standing, gain: Ratio) -> Ending:
    if len(standing.passed) >= standing.plan.spec.search.finalists:
        return Outcome.SLOWER, f"{words_of_gain(standing, gain)}; others did better"
    return Outcome.OUT_OF_BUDGET, f"{_OUT_OF_BUDGET}its full accuracy test"


def _ending_of_finalist(standing: Standing, recipe: Recipe, chosen: Recipe | None) -> Ending:
    broken = ending_under_load(standing, recipe.key)
    if broken is not None:
        return broken
    gain = standing.gain(recipe.key)
    if gain is None or not is_enough(standing, gain):
        return Outcome.NO_GAIN, _shortfall_in_words(standing, gain)
    test = standing.tests[recipe.key].result
    kept = f"; {result_in_words(test)}{company_in_words(standing.company(recipe.key))}" if test is not None else ""
    if chosen is not None and recipe == chosen:
        return Outcome.CHOSEN, f"{words_of_gain(standing, gain)}{kept}"
    return Outcome.FINALIST, f"{words_of_gain(standing, gain)}{kept}; another did better"


def is_enough(standing: Standing, gain: Ratio) -> bool:
    """Whether a gain is what the profile asks for, and surely more than nothing."""
    return gain.low > 1 and gain.value >= float(standing.plan.spec.constraints.min_speedup)


def ending_under_load(standing: Standing, key: str) -> Ending | None:
    """What of the load test keeps a finalist from being chosen; None where nothing does."""
    own = standing.plan.spec.constraints.latency_p99_milliseconds is not None
    trial = standing.loads.get(key)
    if trial is None:
        return (Outcome.OUT_OF_BUDGET, f"{_OUT_OF_BUDGET}its load test") if own else None
    problem = standing.load_problem(key)
    if problem is None:
        return None
    if trial.load is None:
        return Outcome.BROKEN, problem
    # A deployment's bound that the model itself cannot keep either is no reason to stay with the slower one.
    if not own and standing.load_problem(standing.plain.key) is not None:
        return None
    return Outcome.CONSTRAINT_BROKEN, problem


def _shortfall_in_words(standing: Standing, gain: Ratio | None) -> str:
    if gain is None:
        return "its gain could not be told"
    asked = float(standing.plan.spec.constraints.min_speedup)
    if gain.value >= asked:
        return f"{words_of_gain(standing, gain)}, which may be none at all"
    return f"{words_of_gain(standing, gain)}; at least {asked:.2f}x is asked"


def why_nobody_judged(standing: Standing, reports: Sequence[CandidateReport]) -> str | None:
    """That all who were tried were broken, and by what; None where somebody was judged, or none could be tried."""
    broken = [each for each in reports if each.outcome is Outcome.BROKEN and each.recipe in standing.plan.candidates]
    over = (Outcome.BASELINE, Outcome.INFEASIBLE, Outcome.OUT_OF_BUDGET, Outcome.BROKEN)
    if not broken or any(each.outcome not in over for each in reports):
        return None
    count = len(broken)
    them = "the only candidate that was tried" if count == 1 else f"all {count} candidates that were tried"
    return (
        f"nobody was judged: {them} broke ({commonest_reason(broken)}); mend that in the model, leave the step or engine out of the "
        "profile, or report it as a fault of ours"
    )


def commonest_reason(reports: Sequence[CandidateReport]) -> str:
    """The reason that most candidates share, with how many."""
    reasons = Counter(each.reason for each in reports if each.outcome is not Outcome.BASELINE)
    reason, count = reasons.most_common(1)[0]
    return f"{reason}; {count} of {reasons.total()}" if reasons.total() > 1 else reason
