"""A rollout as one self-contained HTML page: no script, no font, no request to anywhere. Made of the status alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import ChoiceLoader, FileSystemLoader

from penstock.api.meta import AUTO
from penstock.api.rollout import RolloutPhase, RolloutPoint, RolloutSpec, RolloutStatus, evidence_of
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.optimization.report import SearchVerdict
from penstock_cli.rollouts.showing import SHARES, duration, seconds_since, tell_proof
from penstock_optimizer.report.axes import Axis
from penstock_optimizer.report.templates import TEMPLATES

_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 72, 640, 14, 48, 240
_LABEL_PIXELS: Final = 13
"""Between the names of two curves, one above the other."""
_MARGIN: Final = 1.08
_MINUTE, _HOUR = 60.0, 3600.0
_PERCENT: Final = 100.0
_TONES: Final = {
    RolloutPhase.PROMOTED: SearchVerdict.ACCEPTED,
    RolloutPhase.WATCHING: SearchVerdict.ACCEPTED,
    RolloutPhase.ROLLED_BACK: SearchVerdict.REJECTED,
}
"""How a phase is coloured, by the names that the sheet has; others are under way."""
_CURVES: Final = ("chosen", "baseline", "warn", "bad", "good", "plain")

_ENVIRONMENT: Final = TEMPLATES.overlay(
    loader=ChoiceLoader([FileSystemLoader(Path(__file__).parent), *filter(None, [TEMPLATES.loader])])
)


def render(deployment: InferenceDeployment, rollout: RolloutStatus, now: datetime) -> str:
    """The page, as HTML text.

    Args:
        deployment: whose rollout it is.
        rollout: of its status.
        now: when it is made.
    """
    harm, proof = evidence_of(rollout.harm_bound), evidence_of(rollout.proof_bound)
    judged = [each for each in rollout.metrics if each.name != SHARES]
    since = seconds_since(rollout.started_at, now)
    return _ENVIRONMENT.get_template("rollout.html").render(
        name=f"{deployment.metadata.namespace}/{deployment.metadata.name}",
        spec=deployment.spec.rollout,
        rollout=rollout,
        tone=_TONES.get(rollout.phase, SearchVerdict.NO_DECISION),
        began="" if since is None else f"began {rollout.started_at}, {duration(since)} before this page was made",
        made=f"{now:%Y-%m-%d %H:%M:%S} UTC",
        harm=harm,
        proof=proof,
        due=_tell_due(rollout, now),
        parity=_tell_parity(deployment.spec.rollout, rollout),
        tell_proof=tell_proof,
        evidence_of=evidence_of,
        proved=sum(each.proved for each in judged),
        judged=len(judged),
        plots=plots(rollout, harm, proof),
    )


def _tell_parity(spec: RolloutSpec, rollout: RolloutStatus) -> str:
    """What agreement is asked for, and where the spec leaves that open, what it comes to; of a former release's rollout only what it says."""
    asked = spec.analysis.output_parity
    if not rollout.output_parity:
        return str(asked)
    auto = " (Auto)" if asked == AUTO else ""
    if not evidence_of(rollout.output_parity):
        return f"not asked for{auto}"
    return f"{rollout.output_parity}{auto}{f', compared by {rollout.loss}' if rollout.loss else ''}"


def _tell_due(rollout: RolloutStatus, now: datetime) -> str:
    """How long there is until it is to be proved; empty where that is no matter."""
    since = seconds_since(rollout.deadline, now)
    if since is None or rollout.phase.ended or rollout.phase is RolloutPhase.WATCHING:
        return ""
    return f"in {duration(-since)}" if since <= 0 else f"{duration(since)} ago"


def plots(rollout: RolloutStatus, harm: float, proof: float) -> list[dict[str, Any]]:
    """Share and evidence over time; none where too little of it is known."""
    history = rollout.history
    if len(history) < 2 or history[-1].after <= history[0].after:  # noqa: PLR2004 (a curve of one point is none)
        return []
    names = list(dict.fromkeys(name for point in history for name in point.proof if name != SHARES))
    shares = [("requests", [float(point.weight) for point in history])]
    harms = [("all metrics", [evidence_of(point.harm) for point in history])]
    proofs = [(name, [evidence_of(point.proof.get(name, "0")) for point in history]) for name in names]
    made = [
        _plot("Share of the requests", "percent", history, shares, top=_PERCENT, stepped=True),
        _plot("Evidence that it is worse", "log10 of odds", history, harms, bound=harm),
    ]
    if proofs:
        made.append(_plot("Evidence that it is no worse", "log10 of odds", history, proofs, bound=proof))
    return made


def _plot(
    title: str,
    unit: str,
    history: Sequence[RolloutPoint],
    curves: Sequence[tuple[str, list[float]]],
    *,
    bound: float | None = None,
    top: float | None = None,
    stepped: bool = False,
) -> dict[str, Any]:
    """One picture. Evidence against a bound is drawn from 0 to somewhat above the bound: what is beyond stays at the edge."""
    scale, per = _time_unit(history[-1].after)
    x = Axis(history[0].after / scale, history[-1].after / scale, _LEFT, _RIGHT)
    highest = max(max(values) for _, values in curves)
    high = top or min(max(highest, bound or 1.0), 2 * (bound or 1.0)) * _MARGIN
    y = Axis(0.0, high, _HEIGHT - _BOTTOM, _TOP)
    drawn = [
        {"name": name, "tone": _CURVES[index % len(_CURVES)], "end": y(values[-1]),
         "points": _points(history, values, lambda point: x(point.after / scale), y, stepped=stepped)}
        for index, (name, values) in enumerate(curves)
    ]  # fmt: skip
    _spread(drawn)
    return {
        "title": title,
        "unit": unit,
        "x": x,
        "y": y,
        "height": _HEIGHT,
        "curves": drawn,
        "bound": bound,
        "per": per,
    }


def _points(
    history: Sequence[RolloutPoint],
    values: Sequence[float],
    place: Callable[[RolloutPoint], float],
    y: Axis,
    *,
    stepped: bool,
) -> str:
    corners: list[str] = []
    before: float | None = None
    for point, value in zip(history, values, strict=True):
        if stepped and before is not None:
            corners.append(f"{place(point)},{y(before)}")
        corners.append(f"{place(point)},{y(value)}")
        before = value
    return " ".join(corners)


def _spread(curves: list[dict[str, Any]]) -> None:
    """Names at the ends of curves, none over another."""
    lowest = float("inf")
    for each in sorted(curves, key=lambda curve: -curve["end"]):
        lowest = each["label"] = min(each["end"], lowest - _LABEL_PIXELS)


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds >= 2 * _HOUR:
        return _HOUR, "hours"
    return (_MINUTE, "minutes") if seconds >= 2 * _MINUTE else (1.0, "seconds")
