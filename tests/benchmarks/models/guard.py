"""Two pipelines that are known to ruin a model: the guard must refuse both for their accuracy, within a minute."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.models.inputs import Input
from tests.benchmarks.models.searching import PROFILES, search, workspace
from tests.benchmarks.report import progress, publish

from penstock.optimization.report import CandidateReport, Outcome, Verdict
from penstock.optimization.trials import TRIAL, GateTrial

_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Bad:
    """A pipeline, and the model that it ruins."""

    what: str
    model: str
    profile: str


PIPELINES = (
    Bad("ONNX Runtime static int8 on MiniLM", "minilm", "guard-minilm"),
    Bad("NNCF int8 on the digits CNN without three quarters of its channels", "digits", "guard-digits"),
)


def run(models: dict[str, Input], work: Path) -> None:
    """Search with each pipeline alone and publish how it was refused."""
    rows: list[dict[str, Any]] = []
    for bad in PIPELINES:
        progress(f"guard: {bad.what}")
        folder = work / "guard" / bad.profile
        began = time.time()
        report = search(models[bad.model], PROFILES / f"{bad.profile}.yaml", folder).report
        refused = [each for each in report.candidates if each.outcome is Outcome.ACCURACY_LOST]
        seconds = max((_gate_written(folder, each) - began for each in refused), default=float("inf"))
        met = report.verdict is Verdict.REJECTED and bool(refused) and seconds <= _SECONDS
        rows.append(
            {
                "pipeline": bad.what,
                "verdict": str(report.verdict),
                "refused": "; ".join(each.reason for each in refused),
                "refused after s": seconds,
                "whole search s": report.seconds,
                "met": "yes" if met else "NO",
            }
        )
    publish("guard", "Known-bad pipelines", rows)


def _gate_written(folder: Path, refused: CandidateReport) -> float:
    """When the trial that refused it was kept, in seconds since the Unix epoch."""
    for path in sorted(workspace(folder).glob("searches/*/ledger/*.json")):
        trial = TRIAL.validate_json(path.read_bytes())
        if isinstance(trial, GateTrial) and trial.recipe_key == refused.recipe.key:
            return path.stat().st_mtime
    raise RuntimeError(f"the ledger holds no accuracy test of {refused.recipe.label}")
