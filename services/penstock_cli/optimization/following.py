"""What `penstock optimize` shows: how a search gets on, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from penstock.api import API_VERSION
from penstock.api.documents import write_yaml
from penstock.errors import Unavailable
from penstock.optimization.measurements import Timing
from penstock.optimization.progress import OptimizationRequest, Progress, RunResult
from penstock.optimization.report import CandidateReport, Outcome, Report, SearchVerdict
from penstock_cli.invocation import command_as_typed
from penstock_optimizer.publishing.artifact import REPORT_JSON, REPORT_PAGE
from penstock_runtime.storage import Store

_STYLES = {
    SearchVerdict.ACCEPTED: "bold green",
    SearchVerdict.REJECTED: "bold yellow",
    SearchVerdict.NO_DECISION: "bold yellow",
}
_OUTCOME_STYLES = {Outcome.CHOSEN: "green", Outcome.FINALIST: "green", Outcome.BASELINE: "bold"}
_REFRESH_PER_SECOND = 4
_WHOLE = 100


class Display:
    """Live on a terminal; elsewhere a line for each trial. Called with each `Progress`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._spinner = Spinner("dots")
        self._last: tuple[Progress, float] | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=_REFRESH_PER_SECOND,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Show where the search stands."""
        before = self._last
        self._last = (progress, time.monotonic())
        if self._live is None:
            self._console.print(plain_line(progress), highlight=False, markup=False, soft_wrap=True)
        elif before is not None and before[0].message != progress.message:
            took = self._last[1] - before[1]
            line = f"[green]✓[/green] {escape(before[0].message)} [dim]{took:.1f} s[/dim]"
            self._console.print(line, highlight=False)

    def _render(self) -> RenderableType:
        if self._last is None:
            return Text()
        progress, since = self._last
        elapsed = progress.elapsed_seconds + time.monotonic() - since
        counted = f"{progress.done}/{progress.total}" if progress.total else ""
        self._spinner.update(text=Text.assemble((f" {progress.stage} {counted} ", "bold"), progress.message))
        left = max(progress.budget_seconds - elapsed, 0.0)
        clock = Text(f"  {_format_clock(elapsed)} gone, {_format_clock(left)} left of the budget", style="dim")
        return Group(self._spinner, _best_line(progress), clock)


def plain_line(progress: Progress) -> str:
    """A line for logs."""
    counted = f" {progress.done}/{progress.total}" if progress.total else ""
    best = f" (best: {progress.best_speedup:.2f}x)" if progress.best_speedup is not None else ""
    return f"{_format_clock(progress.elapsed_seconds)} {progress.stage}{counted}: {progress.message}{best}"


def _best_line(progress: Progress) -> Text:
    if progress.best is None or progress.best_speedup is None:
        return Text("  nothing better yet", style="dim")
    return Text(f"  best so far: {progress.best}, {progress.best_speedup:.2f}x ONNX Runtime fp32", style="green")


def _format_clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def show(console: Console, request: OptimizationRequest, result: RunResult, manifest: Path | None) -> None:
    """Print what came of a search: before and after, every candidate's end, and where things are."""
    report = _report(request, result)
    console.print(comparison_table(report))
    console.print(outcome_table(report))
    console.print(Text.assemble((f"{result.verdict}: ", _STYLES[result.verdict]), result.summary), soft_wrap=True)
    for line in result.judged:
        console.print(f"judged: {line}", style="dim", highlight=False, markup=False, soft_wrap=True)
    for warning in report.warnings:
        console.print(f"note: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if result.reused:
        console.print("Nothing was tried again: all of it was known.", style="dim")
    places = [("Report", f"{result.report_uri}/{REPORT_PAGE}"), ("Artifact", result.artifact_uri)]
    for name, place in places:
        if place is not None:
            console.print(f"{name}: {place}", highlight=False, markup=False, soft_wrap=True)
    if manifest is not None:
        console.print(f"Serve it: {command_as_typed()} run {manifest}", highlight=False, markup=False, soft_wrap=True)


def _report(request: OptimizationRequest, result: RunResult) -> Report:
    store = Store(request.store)
    relative = (result.report_uri or "").removeprefix(store.root.rstrip("/")).lstrip("/")
    body = store.read(f"{relative}/{REPORT_JSON}")
    if body is None:
        raise Unavailable("ReportMissing", f"the report is no longer at {result.report_uri}: run the command again")
    return Report.model_validate_json(body)


def comparison_table(report: Report) -> Table:
    """The figures of both baselines and of what was chosen."""
    baselines = [each for each in report.candidates if each.outcome is Outcome.BASELINE]
    chosen = report.candidate(report.chosen)
    shown = [*baselines, *([chosen] if chosen is not None else [])]
    table = Table(title=f"{report.model} on {report.hardware.cpu}", title_justify="left", title_style="bold")
    table.add_column("")
    for each in shown:
        table.add_column(each.recipe.label, justify="right", overflow="fold")
    for each in baselines if chosen is not None else []:
        table.add_column(f"against {each.recipe.engine.name}", justify="right")
    for row in _rows(report):
        values = [row.value(each) for each in shown]
        if any(value is not None for value in values):
            texts = [row.text(value) if value is not None else "" for value in values]
            factors = _factors(values, len(baselines), more=row.more_is_better)
            if chosen is not None:
                # The report's own ratios are paired by round, which those of two medians are not.
                paired = [chosen.speedups.get(f"{each.recipe.label}, {row.paired}") for each in baselines]
                factors = [f"{a.value:.2f}x" if a else b for a, b in zip(paired, factors, strict=True)]
            table.add_row(row.name, *texts, *(factors if chosen is not None else []))
    if chosen is not None and chosen.accuracy is not None:
        found = chosen.accuracy
        others = ["" for _ in baselines[1:]]
        table.add_row(
            found.metric, f"{found.baseline:.4f}", *others, f"{found.candidate:.4f}", *("" for _ in baselines)
        )
    return table


@dataclass(frozen=True, slots=True)
class _Row:
    """One figure of all variants."""

    name: str
    value: Callable[[CandidateReport], float | None]
    text: Callable[[float], str]
    more_is_better: bool = False
    paired: str = ""
    """How the report calls its ratio, after the baseline."""


def _rows(report: Report) -> list[_Row]:
    sizes = report.profile_spec.workload.batch_sizes
    first = sizes[0]
    return [
        *(
            _Row(f"CPU time, batch {size}", _timing_of(size, _cpu_milliseconds), _milliseconds, paired=f"batch {size}")
            for size in sizes
        ),
        _Row("latency p50", _timing_of(first, lambda timing: timing.wall_milliseconds_p50), _milliseconds),
        _Row("latency p99", _timing_of(first, lambda timing: timing.wall_milliseconds_p99), _milliseconds),
        _Row(
            "requests/s, loaded",
            lambda each: each.load.requests_per_second if each.load else None,
            lambda value: f"{value:,.0f}" if value >= _WHOLE else f"{value:.3g}",
            more_is_better=True,
        ),
        _Row("size", lambda each: float(each.size_bytes) if each.size_bytes else None, _megabytes),
        _Row("peak memory", _timing_of(first, lambda timing: float(timing.peak_memory_bytes)), _megabytes),
    ]


def _timing_of(size: int, value: Callable[[Timing], float]) -> Callable[[CandidateReport], float | None]:
    return lambda each: next((value(timing) for timing in each.timings if timing.batch_size == size), None)


def _factors(values: list[float | None], baselines: int, *, more: bool) -> list[str]:
    """How many times better the last is than each baseline."""
    last = values[-1]
    pairs = [(last, before) if more else (before, last) for before in values[:baselines]]
    return [f"{a / b:.2f}x" if a and b else "" for a, b in pairs]


def _milliseconds(value: float) -> str:
    return f"{value:.3g} ms" if value < _WHOLE else f"{value:.0f} ms"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.2f} MB"


def _cpu_milliseconds(timing: Timing) -> float:
    turns = sorted(timing.wall_seconds_per_run if timing.accelerated else timing.cpu_seconds_per_run)
    return 1000 * turns[len(turns) // 2]


def outcome_table(report: Report) -> Table:
    """Where each candidate ended, and why."""
    table = Table(title="Candidates", title_justify="left", title_style="bold")
    for heading in ("recipe", "outcome", "why"):
        table.add_column(heading, overflow="fold")
    for each in report.candidates:
        if each.outcome is not Outcome.BASELINE:
            style = _OUTCOME_STYLES.get(each.outcome, "")
            table.add_row(each.recipe.label, Text(each.outcome, style=style), Text(each.reason))
    return table


def serving_manifest(request: OptimizationRequest, result: RunResult) -> str | None:
    """An `InferenceDeployment` of the artifact, with the measured batch settings, as YAML; None: nothing was chosen."""
    if result.artifact_uri is None or result.artifact_format is None:
        return None
    spec: dict[str, object] = {
        "model": {
            "storageUri": result.artifact_uri,
            "modelFormat": result.artifact_format.value,
            "digest": result.artifact_digest,
        }
    }
    if request.threads > 1:
        spec["resources"] = {"cpu": str(request.threads)}
    if result.capacity is not None:
        spec["batching"] = {
            "maxBatchSize": result.capacity.max_batch_size,
            "maxDelayMilliseconds": result.capacity.max_delay_milliseconds,
        }
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "InferenceDeployment",
        "metadata": {"name": request.name, "namespace": "default"},
        "spec": spec,
    }
    return write_yaml(manifest)
