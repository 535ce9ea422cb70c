"""Two pipelines that are known to ruin a model: the guard must refuse both for their accuracy, within a minute."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.models.inputs import Input
from tests.benchmarks.models.searching import PROFILES, search, workspace
from tests.benchmarks.report import progress, publish

from penstock.optimization.report import CandidateReport, Outcome
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
        # Anew each time: how soon it is refused is what is measured.
        shutil.rmtree(folder, ignore_errors=True)
        report = search(models[bad.model], PROFILES / f"{bad.profile}.yaml", folder).report
        refused = [each for each in report.candidates if each.outcome is Outcome.ACCURACY_LOST]
        seconds = max((_refused_after(folder, each) for each in refused), default=float("inf"))
        pipeline = max(report.candidates, key=lambda each: len(each.recipe.steps))
        met = pipeline in refused and seconds <= _SECONDS
        rows.append(
            {
                "pipeline": bad.what,
                "refused": "; ".join(f"{each.recipe.label}: {each.reason}" for each in refused),
                "refused after s": seconds,
                "whole search s": report.seconds,
                "met": "yes" if met else "NO",
            }
        )
    publish("guard", "Known-bad pipelines", rows)


def _refused_after(folder: Path, refused: CandidateReport) -> float:
    """Seconds from the first trial's start to the end of the accuracy test that refused a candidate."""
    kept = [
        (TRIAL.validate_json(path.read_bytes()), path.stat().st_mtime)
        for path in sorted(workspace(folder).glob("searches/*/ledger/*.json"))
    ]
    began = min(written - trial.seconds for trial, written in kept)
    return max(
        written - began
        for trial, written in kept
        if isinstance(trial, GateTrial) and trial.recipe_key == refused.recipe.key
    )
