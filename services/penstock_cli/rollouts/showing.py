"""What `penstock rollout` says of a rollout. Pure: of a status and the time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from penstock.api.rollout import (
    MetricEvidence,
    ProofSource,
    RolloutPhase,
    RolloutSample,
    RolloutSpec,
    RolloutStatus,
    RolloutType,
    evidence_of,
)
from penstock.api.rollout_commands import RolloutCommand, RolloutVerb, parse_command, sensible_verbs
from penstock.wording import join_with_or
from penstock_cli.objects.showing import align

_BAR: Final = 10
"""Characters of a whole bar."""
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_PROVED_BY: Final[Mapping[ProofSource | None, str]] = {
    ProofSource.SHOWN: " by what both were shown",
    ProofSource.MADE: " by made inputs",
}
"""Where clients' requests are too few."""
_NOT_FOR_PEOPLE: Final = {"evidence", "notes", "history"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
SHARES: Final = "shares"
"""The metric that is nobody's fault, and of which nothing is to be proved."""


def bar(value: float, bound: float) -> str:
    """How much of its bound a figure is, as ten characters at most; nothing for what speaks against it."""
    share = min(max(value / bound, 0.0), 1.0) if bound > 0 else 0.0
    whole, eighths = divmod(round(share * _BAR * 8), 8)
    return (_EIGHTHS[-1] * whole + (_EIGHTHS[eighths] if eighths else "")).ljust(_BAR, "·")


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `5 h` or `3 d`."""
    whole = max(0, int(seconds))
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if whole >= 2 * unit:
            return f"{whole // unit} {name}"
    return f"{whole} s"


def seconds_since(moment: str, now: datetime) -> float | None:
    """Seconds since an RFC 3339 moment; None for what is none."""
    try:
        return (now - datetime.fromisoformat(moment).astimezone(UTC)).total_seconds()
    except ValueError:
        return None


def describe_line(rollout: RolloutStatus) -> str:
    """Where a rollout is, on one line: for logs, and to see whether anything has changed."""
    return f"{rollout.candidate} {rollout.phase} {rollout.weight} %: {rollout.message}"


def describe(name: str, spec: RolloutSpec, rollout: RolloutStatus, now: datetime) -> list[str]:
    """All that people want to know of a rollout, in lines."""
    lines = [f"{name}: {_headline(rollout)}", _place(spec, rollout, now)]
    lines += [rollout.message] if rollout.message else []
    lines += _deadline(rollout, now)
    if rollout.shown:
        lines.append(f"{rollout.shown}.")
    if rollout.metrics:
        lines += ["", *metric_lines(rollout)]
    if rollout.worst:
        lines += ["", "Answers that differed most:", *(f"  {sample_line(each)}" for each in rollout.worst)]
    verbs = sensible_verbs(rollout.phase)
    if verbs:
        lines += ["", f"It can be told to {join_with_or(verbs)}."]
    return lines


def _headline(rollout: RolloutStatus) -> str:
    candidate, stable = rollout.candidate, rollout.stable
    match rollout.phase:
        case RolloutPhase.PROMOTED:
            return f"revision {candidate} has taken over from {stable} ({rollout.type})"
        case RolloutPhase.ROLLED_BACK:
            return f"revision {candidate} was rolled back, and {stable} serves ({rollout.type})"
        case RolloutPhase.WATCHING:
            return f"revision {candidate} has taken over from {stable}, and is watched ({rollout.type})"
        case _:
            return f"revision {candidate} is judged against {stable} ({rollout.type})"


def _place(spec: RolloutSpec, rollout: RolloutStatus, now: datetime) -> str:
    since = seconds_since(rollout.phase_at, now)
    lasted = "" if since is None else f" for {duration(since)}"
    has_steps = rollout.type is RolloutType.CANARY and rollout.phase in (RolloutPhase.STEPPING, RolloutPhase.HELD)
    step = f", step {rollout.step + 1} of {len(spec.steps)}" if has_steps and rollout.weight else ""
    return f"{rollout.phase}{lasted}: {rollout.weight} % of the requests{step}"


def _deadline(rollout: RolloutStatus, now: datetime) -> list[str]:
    since = seconds_since(rollout.deadline, now)
    if since is None or rollout.phase.ended or rollout.phase is RolloutPhase.WATCHING:
        return []
    if since > 0:
        return [f"It was to be proved to be no worse by {rollout.deadline}, {duration(since)} ago."]
    return [f"It is to be proved to be no worse by {rollout.deadline}, in {duration(-since)}."]


def metric_lines(rollout: RolloutStatus) -> list[str]:
    """A table of what is known of each metric, with evidence against its bounds."""
    harm, proof = evidence_of(rollout.harm_bound), evidence_of(rollout.proof_bound)
    headings = ("METRIC", "NEW", "PRESENT", "SAMPLES", f"WORSE (of {harm:g})", f"NO WORSE (of {proof:g})")
    rows = [headings, *(_metric_row(each, harm, proof) for each in rollout.metrics)]
    whole = evidence_of(rollout.harm)
    rows.append(("all", "", "", "", f"{bar(whole, harm)} {whole:.1f}", ""))
    return align(rows)


def _metric_row(metric: MetricEvidence, harm: float, proof: float) -> tuple[str, ...]:
    worse, no_worse = evidence_of(metric.harm), evidence_of(metric.proof)
    return (
        metric.name, metric.candidate, metric.baseline, f"{metric.samples:,}",
        f"{bar(worse, harm)} {worse:.1f}",
        "" if metric.name == SHARES else f"{bar(no_worse, proof)} {no_worse:.1f}{tell_proof(metric)}",
    )  # fmt: skip


def tell_proof(metric: MetricEvidence) -> str:
    """Whether a metric is proved, and where clients' requests are too few, by what."""
    if not metric.proved:
        return ""
    return f" proved{_PROVED_BY.get(metric.proved_by, '')}"


def sample_line(sample: RolloutSample) -> str:
    """How an answer differed."""
    output = f"{sample.output}: " if sample.output else ""
    return f"{sample.at}  {output}loss {sample.loss}, {sample.twin_loss} of the present revision's own. {sample.told}".rstrip()


def document(name: str, namespace: str, rollout: RolloutStatus | None) -> dict[str, Any]:
    """A rollout for programs, without what only the operator reads."""
    whole = None if rollout is None else rollout.model_dump(mode="json", by_alias=True, exclude_none=True)
    shown = None if whole is None else {key: each for key, each in whole.items() if key not in _NOT_FOR_PEOPLE}
    return {"name": name, "namespace": namespace, "rollout": shown}


def command_for(verb: RolloutVerb, rollout: RolloutStatus, now: datetime) -> str | None:
    """The command for the annotation, told apart from one of the same verb that was carried out; None: it is paused already."""
    before = parse_command(rollout.obeyed)
    if before is None or (before.verb, before.revision) != (verb, rollout.candidate):
        return str(RolloutCommand(verb, rollout.candidate))
    if verb is RolloutVerb.PAUSE:
        return None
    return str(RolloutCommand(verb, rollout.candidate, f"{now:%Y%m%dT%H%M%SZ}"))


def announce(verb: RolloutVerb, rollout: RolloutStatus) -> str:
    """What a command that makes sense will bring about."""
    candidate, stable = rollout.candidate, rollout.stable
    match verb:
        case RolloutVerb.PROMOTE:
            return _announce_promotion(rollout)
        case RolloutVerb.PAUSE:
            return f"revision {candidate} goes no further than {rollout.weight} % of the requests; evidence goes on being gathered"
        case RolloutVerb.RESUME:
            return f"revision {candidate} goes on from {rollout.weight} % of the requests, with all of its time again"
        case RolloutVerb.ABORT:
            return f"revision {candidate} gets no request any more, and {stable} all of them; it is not tried again by itself"
        case RolloutVerb.UNDO:
            return f"revision {stable} gets all requests again, and {candidate} none"
        case RolloutVerb.RETRY:
            return f"revision {candidate} is judged against {stable} anew, from the beginning"


def _announce_promotion(rollout: RolloutStatus) -> str:
    candidate, stable = rollout.candidate, rollout.stable
    if rollout.phase is RolloutPhase.WATCHING:
        return f"revision {candidate} is watched no longer, and {stable} goes: from then on nothing takes it back"
    unproved = [each.name for each in rollout.metrics if not each.proved and each.name != SHARES]
    though = f", though it is not proved to be no worse in {', '.join(unproved)}" if unproved else ""
    though = though or ("" if rollout.metrics else ", though nothing was compared yet")
    return f"revision {candidate} gets all requests now{though}"
