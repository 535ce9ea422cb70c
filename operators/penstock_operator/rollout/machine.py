"""One look at a judged rollout: what becomes of it, which replicas there are to be, and where requests go.

Pure, and all that it goes on from stands in `status.rollout`: whoever looks next, after a restart or another operator, goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from penstock.api.rollout import BaselineKind, RolloutPhase, RolloutPoint, RolloutStatus
from penstock.api.rollout_commands import RolloutVerb
from penstock.api.verdicts import epoch, timestamp
from penstock.routing.outcomes import ReplicaOutcomes, RevisionComparison
from penstock_operator.rollout.arms import FULL, ReplicaRange, baseline_size, exactly, expected_share, shares
from penstock_operator.rollout.case import PATIENCE_SECONDS, RolloutCase
from penstock_operator.rollout.commands import is_retried
from penstock_operator.rollout.evidence.findings import AnalysisSettings, EvidenceLook, Findings, learn
from penstock_operator.rollout.evidence.watch import watch
from penstock_operator.rollout.guards import find_harm
from penstock_operator.rollout.history import add_point, mean_harm
from penstock_operator.rollout.in_place import is_in_place, take_place
from penstock_operator.rollout.notes import RolloutNotes, read_notes, take_notes, write_notes
from penstock_operator.rollout.phases import RolloutMove, next_move, serving_revision
from penstock_operator.rollout.showing import count_shown, find_showing, outcomes_of, tell_shown, tell_worst
from penstock_operator.rollout.sight import RolloutSight

JUDGING_SECONDS: Final = 2.0
HOLDING_SECONDS: Final = 5.0
WATCHING_SECONDS: Final = 5.0
SETTLING_SECONDS: Final = 120.0
"""Who gets all requests is not scaled down for so long."""
BASELINE_SECONDS: Final = 120.0
"""A baseline that does not answer by then is given up."""
WATCHING_SHARE: Final = 0.01
"""Of the requests whose inputs the former revision is shown, after another took over."""
DOUBTING_SHARE: Final = 0.1
"""The same while it is in doubt whether that one has become worse."""

Judge: TypeAlias = Callable[[str, EvidenceLook, AnalysisSettings], Findings]


@dataclass(frozen=True, slots=True)
class RolloutDecision:
    """What follows from a look."""

    record: RolloutStatus
    """For `status.rollout`."""
    weights: Mapping[str, int]
    """Percent of the requests by revision."""
    replicas: Mapping[str, ReplicaRange] = field(default_factory=dict)
    """By revision, of the applications that there are to be; each other one goes as soon as it gets no request."""
    comparison: RevisionComparison | None = None
    wait_seconds: float | None = None
    """Until the next look; None: as if nothing were rolled out."""

    @property
    def active(self) -> str:
        """The revision that serves."""
        return serving_revision(self.record)


def judge_rollout(sight: RolloutSight, judge: Judge | None = None) -> RolloutDecision:
    """Decide on a rollout that is under way, begins, or has ended.

    Args:
        sight: what was seen.
        judge: gives the evidence; None: that of replicas' counts.
    """
    record = sight.record or begin(sight)
    if record.phase.ended:
        if not is_retried(record, sight.command):
            return _decision(sight, record, None)
        record = begin(sight)
    if is_in_place(sight, record):
        return _replace_in_place(sight, record)
    notes = take_notes(read_notes(record.notes), sight, record.weight)
    findings = _weigh(sight, record, judge)
    harm = notes.harm or find_harm(notes, sight) or (findings.harm if findings else None) or ""
    baseline, baseline_at = _baseline(sight, record, notes)
    notes = notes.model_copy(update={"harm": harm[:512], "baseline_at": baseline_at})
    case = _turning(RolloutCase(sight, record, notes, findings, baseline))
    move = next_move(case)
    return _decision(sight, _next_record(case, move), move, doubtful=bool(findings and findings.doubt))


def least_after(record: RolloutStatus, wanted: int, low: int, high: int, now: float) -> int:
    """Least replicas of a revision that got all requests a moment ago: its policy saw but a part of them until then."""
    if now - epoch(record.phase_at) >= SETTLING_SECONDS:
        return low
    return max(low, min(high, wanted))


def begin(sight: RolloutSight) -> RolloutStatus:
    """The record of a rollout that begins now. What people said before it began was said of another, unless it is to try again."""
    now = timestamp(sight.now)
    said = sight.command
    return RolloutStatus(
        type=sight.settings.type,
        phase=RolloutPhase.STARTING,
        candidate=sight.candidate,
        stable=sight.stable,
        started_at=now,
        phase_at=now,
        message="Its replicas start.",
        obeyed=str(said) if said is not None and said.revision == sight.candidate else "",
    )


def _replace_in_place(sight: RolloutSight, record: RolloutStatus) -> RolloutDecision:
    before = read_notes(record.notes)
    notes = RolloutNotes(size=before.size or max(1, sight.arm(sight.stable).running))
    taken = take_place(sight, record, notes.size)
    over = taken.record.phase.ended
    told = taken.record.model_copy(update={"notes": "" if over else write_notes(notes)})
    replicas = {sight.stable: taken.stable, sight.candidate: taken.candidate}
    if over:
        replicas.pop(sight.candidate if told.phase is RolloutPhase.ROLLED_BACK else sight.stable)
    weights = shares(sight.stable, sight.candidate, "", told.weight)
    return RolloutDecision(told, weights, replicas, wait_seconds=None if over else JUDGING_SECONDS)


def _turning(case: RolloutCase) -> RolloutCase:
    """The same, with the time noted at which all requests were to go back."""
    turns = bool(case.notes.harm) or case.is_told(RolloutVerb.UNDO, RolloutVerb.ABORT)
    since = (case.notes.turning_since or case.sight.now) if turns else None
    return replace(case, notes=case.notes.model_copy(update={"turning_since": since}))


def _weigh(sight: RolloutSight, record: RolloutStatus, judge: Judge | None) -> Findings | None:
    """What this look says, added to what was known. Nothing is learned before all arms can answer."""
    if not sight.comparable or record.phase is RolloutPhase.STARTING:
        return None
    young = record.baseline is BaselineKind.YOUNG and sight.arm(sight.baseline).listed > 0
    look = EvidenceLook(
        at=sight.now,
        candidate=outcomes_of(sight.arm(sight.candidate)),
        baseline=outcomes_of(sight.arm(sight.baseline if young else sight.stable)),
        shadowing=_showing(sight, record),
        expected_share=expected_share(record.weight, has_baseline=young),
    )
    settings = sight.settings
    if judge is None and record.weight == FULL:
        # Nothing else serves the same requests any more: it is held against what it was at first.
        proved = [each.name for each in record.metrics if each.proved]
        return watch(record.evidence, look, settings.analysis, settings.keep_seconds, proved)
    return (judge or learn)(record.evidence, look, settings.analysis)


def _showing(sight: RolloutSight, record: RolloutStatus) -> Mapping[str, ReplicaOutcomes]:
    """Replicas of what has all requests show them, or most of them."""
    if record.weight < FULL:
        return find_showing(sight, sight.stable, sight.candidate)
    return find_showing(sight, sight.candidate, sight.stable)


def _baseline(
    sight: RolloutSight, record: RolloutStatus, notes: RolloutNotes
) -> tuple[BaselineKind | None, float | None]:
    """With what the candidate is compared, and since when its baseline is declared.

    A baseline starts once the candidate has its room.
    """
    arm, at, now = sight.arm(sight.baseline), notes.baseline_at, sight.now
    if record.baseline is BaselineKind.FLEET:
        return BaselineKind.FLEET, None
    if record.baseline is None:
        if not sight.arm(sight.candidate).placed:
            return None, None
        return (BaselineKind.YOUNG, now) if sight.room_for_baseline else (BaselineKind.FLEET, None)
    crowded = arm.waiting_since is not None and now - arm.waiting_since >= PATIENCE_SECONDS
    late = not arm.listed and now - (now if at is None else at) >= BASELINE_SECONDS
    if crowded or late or arm.failure or not sight.room_for_baseline:
        return BaselineKind.FLEET, None
    return BaselineKind.YOUNG, now if at is None else at


def _next_record(case: RolloutCase, move: RolloutMove) -> RolloutStatus:
    """The record after a move."""
    before, now = case.record, case.sight.now
    reason = str(move.reason) if move.reason is not None else ""
    moved = (move.phase, move.step, move.weight) != (before.phase, before.step, before.weight)
    changed = moved or (move.phase is RolloutPhase.HELD and reason != before.reason)
    notes = case.notes
    if moved:
        notes = notes.model_copy(update={"at_step": notes.candidate.grown})
    took_over = moved and move.weight == FULL and before.weight < FULL
    if took_over and move.phase is not RolloutPhase.STEPPING:
        notes = notes.model_copy(update={"harm": "", "turning_since": None})
    findings = case.findings
    told = case.told
    record = before.model_copy(
        update={
            "type": case.settings.type,
            "phase": move.phase,
            "step": move.step,
            "weight": move.weight,
            # A clock that was set back would else be waited for.
            "phase_at": timestamp(now)
            if changed or epoch(before.phase_at) > now + JUDGING_SECONDS
            else before.phase_at,
            "deadline": _deadline(case, move, changed=changed),
            "baseline": None if move.phase.ended and before.baseline is None else case.baseline,
            "output_parity": f"{case.settings.analysis.output_parity:g}",
            "loss": case.settings.loss,
            "reason": reason,
            "message": move.message[:1024],
            "replicas": 0 if move.phase.ended or move.weight == FULL else _size(case, move),
            "obeyed": str(told) if told is not None and _is_carried_out(told.verb, move) else before.obeyed,
            "notes": write_notes(notes) if not move.phase.ended else "",
            **(_tell_findings(case, findings) if findings is not None else {}),
            **({"evidence": ""} if move.phase.ended or took_over else {}),
        }
    )
    return _with_point(record, now)


def _tell_findings(case: RolloutCase, findings: Findings) -> dict[str, object]:
    """What the record tells of the evidence; of one that has taken over, by what it did."""
    if case.record.weight == FULL:
        return {"evidence": findings.state}
    analysis, told = case.settings.analysis, _showing(case.sight, case.record)
    speedups = {"speedup": findings.speedup, "speedup_shown": findings.speedup_shown}
    speedup = {name: f"{each:.2f}x" for name, each in speedups.items() if each is not None}
    return {
        "metrics": findings.metrics,
        "harm": mean_harm(findings.metrics),
        "harm_bound": f"{-math.log10(analysis.alpha):.2f}",
        "proof_bound": f"{-math.log10(analysis.beta):.2f}",
        "worst": tell_worst(told) or case.record.worst,
        "replayed": findings.replayed,
        "shown": tell_shown(count_shown(case.sight)) if told else case.record.shown,
        "evidence": findings.state,
        **speedup,
    }


def _with_point(record: RolloutStatus, now: float) -> RolloutStatus:
    point = RolloutPoint(
        after=max(0, round(now - epoch(record.started_at))),
        phase=record.phase,
        weight=record.weight,
        harm=record.harm,
        proof={each.name: each.proof for each in record.metrics},
    )
    return record.model_copy(update={"history": add_point(record.history, point)})


def _is_carried_out(verb: RolloutVerb, move: RolloutMove) -> bool:
    match verb:
        case RolloutVerb.PROMOTE:
            return move.phase in (RolloutPhase.WATCHING, RolloutPhase.PROMOTED)
        case RolloutVerb.ABORT | RolloutVerb.UNDO:
            return move.phase is RolloutPhase.ROLLED_BACK
        case _:
            return True


def _deadline(case: RolloutCase, move: RolloutMove, *, changed: bool) -> str:
    """By when it is to be proved. It begins once its replicas are there, and anew where people let it go on."""
    settings, now = case.settings, case.sight.now
    if move.phase.ended or move.phase is RolloutPhase.STARTING:
        return ""
    if not case.record.deadline or case.is_told(RolloutVerb.RESUME):
        return timestamp(now + settings.deadline_seconds)
    due = case.deadline_at
    return timestamp(due) if changed and due is not None else case.record.deadline


def _size(case: RolloutCase, move: RolloutMove) -> int:
    """Replicas of the candidate while it is judged, and of its baseline."""
    return max(1, move.grow, case.size_at(move.weight or case.next_weight))


def _decision(
    sight: RolloutSight, record: RolloutStatus, move: RolloutMove | None, *, doubtful: bool = False
) -> RolloutDecision:
    young = record.baseline is BaselineKind.YOUNG and not record.phase.ended and record.weight < FULL
    beside = sight.baseline if young and sight.arm(sight.baseline).listed else ""
    return RolloutDecision(
        record=record,
        weights=shares(sight.stable, sight.candidate, beside, record.weight),
        replicas=_replicas(sight, record, move, young=young),
        comparison=_comparison(sight, record, sight.baseline if young else "", doubtful=doubtful),
        wait_seconds=_wait(record),
    )


def _replicas(
    sight: RolloutSight, record: RolloutStatus, move: RolloutMove | None, *, young: bool
) -> dict[str, ReplicaRange]:
    """By revision. The stable one keeps what it needs to take all requests back at once."""
    stable = sight.arm(sight.stable)
    candidate = ReplicaRange(least_after(record, sight.arm(sight.candidate).wanted, sight.low, sight.high, sight.now))
    if record.phase is RolloutPhase.ROLLED_BACK:
        return {sight.stable: ReplicaRange(least_after(record, stable.wanted, sight.low, sight.high, sight.now))}
    if record.phase is RolloutPhase.PROMOTED:
        return {sight.candidate: candidate}
    whole = ReplicaRange(max(1, sight.low, min(sight.high, max(stable.wanted, stable.running))))
    if record.weight == FULL:
        back = move.grow_stable if move is not None else 0
        in_full = record.phase is not RolloutPhase.WATCHING or not sight.switched
        return {
            sight.candidate: candidate,
            sight.stable: whole if in_full else exactly(max(1, sight.low, back)),
        }
    arms = {sight.stable: whole, sight.candidate: exactly(record.replicas)}
    size = baseline_size(record.replicas, shared=sight.settings.shares_requests)
    return {**arms, sight.baseline: exactly(size)} if young else arms


def _comparison(
    sight: RolloutSight, record: RolloutStatus, baseline: str, *, doubtful: bool
) -> RevisionComparison | None:
    """Which revisions the gateways are to compare. Who has all requests shows some of them to the other, and more in doubt."""
    settings = sight.settings
    if record.phase.ended or record.phase is RolloutPhase.STARTING or not sight.comparable:
        return None
    forward = record.weight < FULL
    shown, showing = (sight.candidate, sight.stable) if forward else (sight.stable, sight.candidate)
    most = 1.0
    if record.phase is RolloutPhase.WATCHING:
        most = DOUBTING_SHARE if doubtful else WATCHING_SHARE
    return RevisionComparison(
        candidate=shown,
        stable=showing,
        baseline=baseline,
        shadow_share=min(settings.shadow_share, most),
        loss=settings.loss,
        replay=forward,
        keep_payloads=settings.keep_payloads,
        sticky=settings.sticky and forward,
        loss_where_it_suits=settings.loss_where_it_suits,
        samples=settings.samples if forward else None,
    )


def _wait(record: RolloutStatus) -> float | None:
    match record.phase:
        case RolloutPhase.STARTING | RolloutPhase.SHADOWING | RolloutPhase.STEPPING:
            return JUDGING_SECONDS
        case RolloutPhase.HELD:
            return HOLDING_SECONDS
        case RolloutPhase.WATCHING:
            return WATCHING_SECONDS
        case _:
            return None
