"""Before and after, as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from penstock.api.optimization import OptimizationRun, RunFigures
from penstock_cli.demo.report import DemoResult


def print_comparison(console: Console, before: DemoResult, after: DemoResult, run: OptimizationRun) -> None:
    """The same requests to the model as it was given and to the optimized one, and what the search itself measured."""
    table = Table(title="The same requests through the gateway", title_justify="left", title_style="bold")
    for heading in ("", "before", "after", "change"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in rows(before, after):
        table.add_row(*row)
    console.print(table)
    for line in search_lines(run):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def rows(before: DemoResult, after: DemoResult) -> list[tuple[str, str, str, str]]:
    """Name, before, after and change of each figure."""
    p50 = [each.load.percentile_milliseconds(50) for each in (before, after)]
    p99 = [each.load.percentile_milliseconds(99) for each in (before, after)]
    rate = [each.load.requests_per_second for each in (before, after)]
    accuracy = [each.accuracy(each.served) for each in (before, after)]
    return [
        ("latency p50", f"{p50[0]:.2f} ms", f"{p50[1]:.2f} ms", _times(p50[0], p50[1])),
        ("latency p99", f"{p99[0]:.2f} ms", f"{p99[1]:.2f} ms", _times(p99[0], p99[1])),
        ("requests/s", f"{rate[0]:.0f}", f"{rate[1]:.0f}", _times(rate[1], rate[0])),
        (
            "replica's CPU a request", f"{before.cpu_milliseconds:.3f} ms", f"{after.cpu_milliseconds:.3f} ms",
            _times(before.cpu_milliseconds, after.cpu_milliseconds),
        ),
        ("accuracy", f"{accuracy[0]:.2%}", f"{accuracy[1]:.2%}", f"{(accuracy[1] - accuracy[0]) * 100:+.2f} points"),
        (
            "size of the model", f"{before.size_bytes / 1e6:.2f} MB", f"{after.size_bytes / 1e6:.2f} MB",
            _times(before.size_bytes, after.size_bytes, "smaller"),
        ),
        (
            "memory of the replica", f"{before.resident_bytes / 1e6:.0f} MB", f"{after.resident_bytes / 1e6:.0f} MB",
            f"{(after.resident_bytes - before.resident_bytes) / 1e6:+.0f} MB",
        ),
    ]  # fmt: skip


def search_lines(run: OptimizationRun) -> list[str]:
    """What the search says: the recipe, and the model's own speed-up against each baseline, without the gateway."""
    status = run.status
    figures = status.figures or RunFigures()
    pairs = ((figures.speedup, figures.baseline), (figures.speedup_against_onnx_runtime, "ONNX Runtime fp32"))
    said = [f"{factor} against {baseline}" for factor, baseline in pairs if factor]
    lines = [f"Recipe: {status.recipe}"] if status.recipe else []
    # Where the first baseline is ONNX Runtime, both are the same.
    different = said[:1] if len({factor for factor, _ in pairs if factor}) == 1 else said
    return [*lines, f"The model alone: {', '.join(different)} in CPU time."] if said else lines


def _times(large: float, small: float, word: str = "better") -> str:
    """How many times better; where it got worse, how many times that."""
    if small <= 0 or large <= 0:
        return ""
    return f"{large / small:.2f}x {word}" if large >= small else f"{small / large:.2f}x {_OPPOSITE[word]}"


_OPPOSITE = {"better": "worse", "smaller": "larger"}
