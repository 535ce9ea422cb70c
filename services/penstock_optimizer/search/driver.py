"""Runs a search from its request to its result: prepare, then decide and act until there is nothing more to try."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.optimization.progress import OptimizationRequest, Progress, RunResult
from penstock.optimization.trials import Stage
from penstock_optimizer.search.conclusion import Ending
from penstock_optimizer.search.decide import (
    Action,
    Build,
    Certify,
    Conclude,
    Gate,
    JudgeOutputs,
    LoadTest,
    MeasureSession,
    decide,
    stage_of,
)
from penstock_optimizer.search.execution import Execution
from penstock_optimizer.search.findings import findings
from penstock_optimizer.search.ledger import Ledger
from penstock_optimizer.search.preparation import Prepared, prepare_search
from penstock_optimizer.search.standing import SearchPlan, Standing
from penstock_optimizer.search.verdict import best_so_far
from penstock_optimizer.search.workspace import SearchFolder, Workspace

Listener = Callable[[Progress], None]


def optimize(request: OptimizationRequest, listen: Listener) -> RunResult:
    """Search, and publish what came of it. What was tried before under the same key is not tried again.

    Args:
        request: what to do.
        listen: told before each trial where the search stands.

    Raises:
        Invalid: the model, the data or the profile is wrong; the message says what to do.
        Unavailable: a store does not answer, or another process runs the very same search.
    """
    budget = request.budget_seconds or request.spec.search.budget_minutes * 60.0
    listen(Progress(stage=Stage.PREPARE, message=f"Opening {request.name}", budget_seconds=budget))
    workspace = Workspace(Path(request.workspace).absolute())
    ready = prepare_search(request, workspace)
    with workspace.hold_search(ready.key) as folder:
        return _Search(ready, folder, listen).run()


@dataclass(frozen=True)
class _Search:
    """One search, whose folder is held."""

    prepared: Prepared
    folder: SearchFolder
    listen: Listener

    def run(self) -> RunResult:
        plan = self.prepared.plan
        ledger = Ledger(self.folder.ledger, self.prepared.key)
        execution = Execution(self.prepared, self.folder)
        before, started, known = ledger.seconds, time.monotonic(), len(ledger.trials)
        while True:
            elapsed = before + time.monotonic() - started
            action = decide(plan, ledger.trials, elapsed)
            self.listen(progress(plan, ledger, action, elapsed))
            if isinstance(action, Conclude):
                break
            ledger.append(execution.run(action, plan.budget_seconds - elapsed))
        return Ending(self.prepared, self.folder, ledger).result(reused=len(ledger.trials) == known)


def progress(plan: SearchPlan, ledger: Ledger, action: Action, elapsed: float) -> Progress:
    """Where a search stands before its next trial."""
    standing = Standing(plan, ledger.trials)
    stage = stage_of(action)
    best = best_so_far(standing)
    done, total = _counts(standing, stage)
    return Progress(
        stage=stage,
        message=_message(action),
        done=done,
        total=max(done, total),
        elapsed_seconds=elapsed,
        budget_seconds=plan.budget_seconds,
        best=best[0].label if best else None,
        best_speedup=best[1] if best else None,
        found=findings(standing),
    )


def _counts(standing: Standing, stage: Stage) -> tuple[int, int]:
    """Trials of a stage that are done, and how many there will be as far as is known."""
    plan = standing.plan
    finalists = plan.spec.search.finalists
    match stage:
        case Stage.BUILD | Stage.GATE:
            # A recipe is built and looked at before the next, so both count as one.
            return len(standing.builds) - (stage is Stage.GATE), len(plan.recipes)
        case Stage.MEASURE:
            return len(standing.sessions), len(standing.sessions) + 1
        case Stage.CERTIFY:
            return len(standing.tests), min(finalists, max(len(standing.leaders), len(standing.tests) + 1))
        case Stage.LOAD:
            return len(standing.loads), len(standing.running_baselines) + len(standing.passed)
        case Stage.PREPARE | Stage.FEASIBILITY | Stage.PUBLISH:
            return 0, 0


def _message(action: Action) -> str:
    match action:
        case Build() | Gate() | Certify() | LoadTest():
            return _recipe_message(action)
        case JudgeOutputs():
            return "Choosing by what accuracy is judged"
        case MeasureSession():
            count = len(action.entrants)
            again = f", attempt {action.attempt + 1}" if action.attempt else ""
            return f"Round {action.rung + 1}: measuring {count} processes at batch {action.batch_size}{again}"
        case Conclude():
            return "Reporting and publishing"


def _recipe_message(action: Build | Gate | Certify | LoadTest) -> str:
    label = action.recipe.label
    match action:
        case Build():
            return f"Building {label}"
        case Gate():
            return f"Looking at the accuracy of {label}"
        case Certify():
            return f"Testing the accuracy of {label} on all samples"
        case LoadTest():
            return f"Loading {label}"
