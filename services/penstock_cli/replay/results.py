"""A replay's results: as a document, as rows of a table, and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from penstock.models import Frozen
from penstock_cli.replay.search import ReplayTrial
from penstock_optimizer.report.axes import axis, number

HEADINGS: Final = (
    "POLICY", "SETTING", "REQUESTS", "VIOLATIONS", "SHARE", "P50 S", "P99 S", "REPLICA-HOURS", "CHANGES", "TURNS",
)  # fmt: skip
_POINTS: Final = 240
"""Of a line over time."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 740, 10, 150


class ReplayMove(Frozen):
    """A decision that changed the number."""

    at_seconds: float
    before: int
    after: int
    reason: str


class ReplayFigures(Frozen):
    """What a policy made of the load."""

    policy: str
    setting: dict[str, float]
    searched: bool
    """Whether a search found the setting, or it is the policy's default."""
    requests: int
    answered: int
    late: int
    refused: int
    lost: int
    replica_hours: float
    latency_seconds_p50: float
    latency_seconds_p99: float
    turns: int
    """How often the number changed its direction."""
    moves: tuple[ReplayMove, ...]
    step_seconds: int
    """Between two values of the lines that follow."""
    wanted: tuple[int, ...]
    running: tuple[int, ...]
    violating: tuple[int, ...]
    """Requests of each step that got no answer in time."""

    @property
    def violations(self) -> int:
        """Requests that got no answer in time."""
        return self.late + self.refused + self.lost


class ReplayDocument(Frozen):
    """All of a replay; what `--json` writes."""

    load: str
    """In words."""
    replica: str
    """Its service times and limits, in words."""
    seconds: int
    capacity: float
    """Requests a second of one replica, in full batches."""
    slo_seconds: float
    rates: tuple[float, ...]
    """Requests a second, by step."""
    policies: tuple[ReplayFigures, ...]


def figures_of(trial: ReplayTrial, seconds: int, *, searched: bool) -> ReplayFigures:
    """The figures of one trial, of its first load."""
    result, step = trial.results[0], step_of(seconds)
    return ReplayFigures(
        policy=trial.family.title,
        setting=trial.setting,
        searched=searched,
        requests=result.requests,
        answered=result.answered,
        late=result.late,
        refused=result.refused,
        lost=result.lost,
        replica_hours=round(result.replica_hours, 4),
        latency_seconds_p50=round(result.latency(0.5), 4),
        latency_seconds_p99=round(result.latency(0.99), 4),
        turns=result.turns,
        moves=tuple(
            ReplayMove(at_seconds=each.at, before=each.before, after=each.after, reason=each.reason)
            for each in result.moves
        ),
        step_seconds=step,
        wanted=tuple(result.wanted[::step]),
        running=tuple(result.running[::step]),
        violating=tuple(sum(result.violations_by_second[at : at + step]) for at in range(0, seconds, step)),
    )


def step_of(seconds: int) -> int:
    """Seconds between two points of a line."""
    return max(1, -(-seconds // _POINTS))


def rates_of(arrivals: Sequence[float], seconds: int) -> tuple[float, ...]:
    """Requests a second, by step."""
    step = step_of(seconds)
    counts = [0] * -(-seconds // step)
    for at in arrivals:
        counts[min(int(at // step), len(counts) - 1)] += 1
    return tuple(round(each / step, 3) for each in counts)


def rows(policies: Sequence[ReplayFigures]) -> list[tuple[str, ...]]:
    """A row for each policy, under `HEADINGS`."""
    return [
        (
            each.policy,
            ("best: " if each.searched else "default: ") + setting_text(each.setting),
            f"{each.requests:,}",
            f"{each.violations:,}",
            f"{each.violations / max(each.requests, 1):.2%}",
            number(each.latency_seconds_p50),
            number(each.latency_seconds_p99),
            f"{each.replica_hours:.2f}",
            str(len(each.moves)),
            str(each.turns),
        )
        for each in policies
    ]


def setting_text(setting: dict[str, float]) -> str:
    """A setting for people."""
    return " ".join(f"{name}={value:g}" for name, value in setting.items())


def render(document: ReplayDocument) -> str:
    """One self-contained HTML page: no script, no font, no request to anywhere."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = number
    step = step_of(document.seconds)
    x = axis([0, document.seconds], _LEFT, _RIGHT, margin=0.0)
    load = _plot([("rate", document.rates, "rate")], step, x)
    highest = max((max(each.wanted, default=0) for each in document.policies), default=1)
    worst = max((max(each.violating, default=0) for each in document.policies), default=1)
    plots = [
        {
            "figures": each,
            "setting": setting_text(each.setting),
            "replicas": _plot(
                [("wanted", each.wanted, "wanted"), ("running", each.running, "running")], step, x, highest
            ),
            "violations": _plot([("violations", each.violating, "violations")], step, x, worst),
        }
        for each in document.policies
    ]
    return environment.get_template("page.html").render(
        document=document, headings=HEADINGS, rows=rows(document.policies), load=load, plots=plots, step=step
    )


def _plot(lines: Sequence[tuple[str, Sequence[float], str]], step: int, x: Any, highest: float = 0.0) -> dict[str, Any]:
    """Lines that keep each value until the next."""
    y = axis([0, max([highest, 1.0, *(value for _, values, _ in lines for value in values)])], _BOTTOM, _TOP)
    drawn = []
    for name, values, style in lines:
        points = []
        for at, value in enumerate(values):
            points += [f"{x(at * step)},{y(value)}", f"{x((at + 1) * step)},{y(value)}"]
        drawn.append({"name": name, "style": style, "points": " ".join(points)})
    return {"x": x, "y": y, "lines": drawn}
