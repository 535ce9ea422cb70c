"""`penstock optimize` on three models, against torch eager and ONNX Runtime, both fp32 on one thread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.models.inputs import Input
from tests.benchmarks.models.searching import PROFILES, Found, search
from tests.benchmarks.report import progress, publish

from penstock.optimization.report import CandidateReport, Report


@dataclass(frozen=True, slots=True)
class Aim:
    """What a search should reach."""

    profile: str
    speedup: float
    """Against torch eager fp32 at batch 1."""
    megabytes: float | None = None
    """At most, on disk."""


AIMS = {
    "resnet50": (Aim("resnet50", 8, megabytes=27),),
    "minilm": (Aim("minilm-close", 5), Aim("minilm-same", 3.5)),
    "digits": (Aim("digits", 12),),
}


def run(models: dict[str, Input], work: Path, names: tuple[str, ...]) -> dict[str, Found]:
    """Optimize each model by each of its profiles, and publish a row for each; what was found, by profile."""
    found: dict[str, Found] = {}
    rows: list[dict[str, Any]] = []
    for name in names:
        for aim in AIMS[name]:
            progress(f"optimizing {name} by {aim.profile}")
            ended = search(models[name], PROFILES / f"{aim.profile}.yaml", work)
            found[aim.profile] = ended
            rows.append(_row(aim, ended.report))
    publish(
        "models",
        "Optimized models, one thread; CPU time of one run, and its ratio to two baselines (95 % interval)",
        rows,
        _notes(found),
    )
    return found


def _row(aim: Aim, report: Report) -> dict[str, Any]:
    chosen = report.candidate(report.chosen)
    row: dict[str, Any] = {"profile": aim.profile, "verdict": str(report.verdict)}
    if chosen is None:
        return {**row, "recipe": "", **dict.fromkeys(_ratios(report.candidates[0], report), "")}
    eager = next(r.value for name, r in chosen.speedups.items() if name.startswith("TorchEager"))
    quality = chosen.accuracy or chosen.gate
    size = (chosen.size_bytes or 0) / 1e6
    return {
        **row,
        "recipe": chosen.recipe.label,
        **_ratios(chosen, report),
        "CPU ms b1": 1000 * median(chosen.timings[0].cpu_seconds_per_run),
        "MB": size,
        "was MB": report.source_size_bytes / 1e6,
        "peak MiB": max(t.peak_memory_bytes for t in chosen.timings) / (1 << 20),
        "metric": f"{quality.metric} {quality.candidate:.5f} ({quality.baseline:.5f})" if quality else "",
        "aim": f"{aim.speedup:g}×" + (f", {aim.megabytes:g} MB" if aim.megabytes else ""),
        "met": "yes" if eager >= aim.speedup and (aim.megabytes is None or size <= aim.megabytes) else "NO",
        "seconds": report.seconds,
    }


def _ratios(candidate: CandidateReport, report: Report) -> dict[str, str]:
    sizes = report.profile_spec.workload.batch_sizes
    return {
        f"× {engine} {place}": next(
            (
                f"{ratio.value:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
                for name, ratio in candidate.speedups.items()
                if name.startswith(engine) and name.endswith(f"batch {size}")
            ),
            "",
        )
        for engine in ("TorchEager", "ONNXRuntime")
        for place, size in zip(("b1", "larger"), sizes, strict=False)
    }


def _notes(found: dict[str, Found]) -> list[str]:
    """Controls of each search, and every candidate with its end."""
    notes = []
    for profile, ended in found.items():
        report = ended.report
        controls = ", ".join(f"{c.name} b{c.batch_size} {c.ratio.value:.3f}" for c in report.controls)
        notes.append(f"{profile}: {report.summary} Controls: {controls}.")
        for each in report.candidates:
            speeds = ", ".join(f"{ratio.value:.2f}× {name}" for name, ratio in each.speedups.items())
            notes.append(f"  {each.outcome}: {each.recipe.label}. {each.reason} {speeds}")
    return notes
