"""A run's results: as a document, as rows of a table, and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import Field

from penstock.models import Frozen
from penstock_cli.bench.figures import BUSY_CLIENT, OK, LoadFigures
from penstock_optimizer.report.axes import axis, number

HEADINGS: Final = ("LOAD", "ANSWERS/S", "P50 MS", "P90 MS", "P99 MS", "P99.9 MS", "MAX MS", "REQUESTS", "FAILED")
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 700, 12, 330
_LABEL_PIXELS: Final = 13
"""Between the names of two curves, one above the other."""


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
    found_trials: int = 0
    """How often it was tried, and held."""
    failures: dict[int, str] = Field(default_factory=dict)
    """How each kind of failure read first, by status."""
    interrupted: bool = False
    """Whether the run was ended before all loads were measured; that under way is left out."""

    @property
    def failed_loads(self) -> tuple[LoadFigures, ...]:
        """Those that requests were sent in and none was answered with 200: their figures say nothing of the model."""
        return tuple(each for each in self.loads if each.requests and not each.statuses.get(OK))

    @property
    def found(self) -> str:
        """What a search found, in a sentence."""
        if self.objective_milliseconds is None:
            return ""
        bound = f"p99 ≤ {number(self.objective_milliseconds)} ms"
        if self.found_rate is None:
            return f"No rate that was tried holds {bound}."
        tried = "twice" if self.found_trials > 1 else "only once"
        return f"{number(self.found_rate)} requests/s is the highest rate that holds {bound}, tried {tried}."

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before believing the figures."""
        told = ["Interrupted: the load under way, and those after it, are left out."] if self.interrupted else []
        told += [
            f"{_title(each)}: no answer came within {number(each.seconds)} s: give more --seconds"
            for each in self.loads
            if not each.requests
        ]
        told += [f"{_title(each)}: all {each.requests:,} requests failed" for each in self.failed_loads]
        if late := [each for each in self.loads if each.is_behind]:
            worst = number(max(each.behind_milliseconds_p99 for each in late))
            told.append(
                f"{', '.join(dict.fromkeys(map(_title, late)))}: this client came to requests up to {worst} ms late (p99), and "
                "their latencies hold that: such a rate is beyond it, or it shares its core"
            )
        busy = [each for each in self.loads if each.client_cpu >= BUSY_CLIENT]
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
    curves: list[dict[str, Any]] = []
    for name in ("p50", "p90", "p99"):
        dots: list[dict[str, Any]] = [
            {"x": x(at), "y": y(getattr(each, name)), "tip": f"{number(at)}: {name} {number(getattr(each, name))} ms"}
            for at, each in placed
        ]
        # A rate that was tried again counts by its worst trial: the line goes through that, and up is less.
        worst = {dot["x"]: min(other["y"] for other in dots if other["x"] == dot["x"]) for dot in dots}
        points = " ".join(f"{at},{up}" for at, up in worst.items())
        curves.append({"name": name, "dots": dots, "points": points, "label": worst[dots[-1]["x"]]})
    for lower, upper in pairwise(curves):
        upper["label"] = min(upper["label"], lower["label"] - _LABEL_PIXELS)
    title = "rate, requests/s" if is_open else "connections"
    return {"x": x, "y": y, "curves": curves, "bound": bound, "title": title}
