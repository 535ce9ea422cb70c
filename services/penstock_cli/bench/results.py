"""A run's results: as a document, as rows of a table, and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import Field

from penstock.models import Frozen
from penstock_cli.bench.figures import BUSY_CLIENT, OK, LoadFigures
from penstock_optimizer.report.axes import axis, number

HEADINGS: Final = ("LOAD", "ANSWERS/S", "P50 MS", "P90 MS", "P99 MS", "P99.9 MS", "MAX MS", "REQUESTS", "FAILED")
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 700, 12, 330


class BenchDocument(Frozen):
    """All of a run; what `--json` writes."""

    url: str
    when: str
    client: str
    input: str
    """What was sent, in words."""
    loads: tuple[LoadFigures, ...]
    objective_milliseconds: float | None = None
    found_rate: float | None = None
    """The highest rate whose p99 held the objective; None where none did, or none was looked for."""
    failures: dict[int, str] = Field(default_factory=dict)
    """How each kind of failure read first, by status."""

    @property
    def found(self) -> str:
        """What a search found, in a sentence."""
        if self.objective_milliseconds is None:
            return ""
        bound = f"p99 ≤ {number(self.objective_milliseconds)} ms"
        if self.found_rate is None:
            return f"No rate that was tried holds {bound}."
        return f"{number(self.found_rate)} requests/s is the highest rate that holds {bound}, tried twice."

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before believing the figures."""
        told: list[str] = []
        busy = [each for each in self.loads if each.is_bound_by_client]
        if busy:
            told.append(
                f"{_title(busy[0])}: this client used {busy[0].client_cpu:.0%} of a core (from {BUSY_CLIENT:.0%} on it "
                "may be the client that is measured)"
            )
        told += [f"status {status or 'none'}: {text}" for status, text in sorted(self.failures.items())]
        return tuple(told)


def rows(loads: Sequence[LoadFigures]) -> list[tuple[str, ...]]:
    """A row for each load, under `HEADINGS`."""
    return [_row(each) for each in loads]


def _row(load: LoadFigures) -> tuple[str, ...]:
    latency = load.latency_milliseconds
    figures = ("-",) * 5 if latency is None else (
        number(latency.p50), number(latency.p90),
        f"{number(latency.p99)} ({number(latency.p99_low)}-{number(latency.p99_high)})",
        number(latency.p999), number(latency.most),
    )  # fmt: skip
    failed = ", ".join(f"{count} × {status or 'none'}" for status, count in load.statuses.items() if status != OK)
    return (_title(load), number(load.answers_per_second), *figures, f"{load.requests:,}", failed or "0")


def _title(load: LoadFigures) -> str:
    if load.rate is not None:
        return f"{number(load.rate)}/s"
    return f"{load.connections} connection{'s' if load.connections != 1 else ''}"


def render(document: BenchDocument) -> str:
    """One self-contained HTML page: no script, no font, no request to anywhere."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = number
    return environment.get_template("page.html").render(
        document=document, headings=HEADINGS, rows=rows(document.loads), plot=_plot(document)
    )


def _plot(document: BenchDocument) -> dict[str, Any] | None:
    """Percentiles by load, where at least two loads of one kind were answered."""
    is_open = any(each.rate is not None for each in document.loads)
    placed = sorted(
        (
            (float((each.rate if is_open else each.connections) or 0), each.latency_milliseconds)
            for each in document.loads
            if each.latency_milliseconds is not None and (each.rate is not None) == is_open
        ),
        key=lambda pair: pair[0],
    )
    if len(placed) < 2:  # noqa: PLR2004 (a curve of one point is none)
        return None
    bound = document.objective_milliseconds
    values = [value for _, each in placed for value in (each.p50, each.p90, each.p99)]
    x = axis([at for at, _ in placed], _LEFT, _RIGHT, logarithmic=True)
    y = axis([*values, *([bound] if bound else [])], _BOTTOM, _TOP, logarithmic=True)
    curves = []
    for name in ("p50", "p90", "p99"):
        dots = [
            {"x": x(at), "y": y(getattr(each, name)), "tip": f"{number(at)}: {name} {number(getattr(each, name))} ms"}
            for at, each in placed
        ]
        curves.append({"name": name, "dots": dots, "points": " ".join(f"{dot['x']},{dot['y']}" for dot in dots)})
    title = "rate, requests/s" if is_open else "connections"
    return {"x": x, "y": y, "curves": curves, "bound": bound, "title": title}
