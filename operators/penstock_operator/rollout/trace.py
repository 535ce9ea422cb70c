"""The trace of a rollout: a span of its own, and below it one for each phase and step that ended, with what ended it.

Nothing is remembered: ids follow from the deployment, the revision and when its rollout began, so that what is told twice, since an operator was
killed between the telling and the writing of the status, has the same ids both times.
"""

from __future__ import annotations

import hashlib
from typing import Final

from penstock.api.rollout import RolloutStatus
from penstock.api.verdicts import epoch
from penstock.telemetry import names
from penstock.telemetry.spans import SpanContext, SpanRecord
from penstock.telemetry.startup import phase_context

_NANOSECONDS: Final = 1_000_000_000


def rollout_spans(
    owner: tuple[str, str, str], before: RolloutStatus | None, after: RolloutStatus | None
) -> tuple[SpanRecord, ...]:
    """The spans that end with a new status.

    Args:
        owner: the deployment's namespace, name and uid.
        before: its rollout as the status had it.
        after: as the status has it now.
    """
    if before is None or before.phase.ended or not before.started_at:
        return ()
    same = after is not None and (after.candidate, after.started_at) == (before.candidate, before.started_at)
    if after is None or not same:
        # Another change came, or its deployment was scaled to none: it ended where it was last seen.
        began = _nanoseconds(before.phase_at)
        return (_whole(owner, before, began, "Superseded", before.message),)
    moved = (before.phase, before.step, before.weight) != (after.phase, after.step, after.weight)
    if not moved and before.phase_at == after.phase_at:
        return ()
    ends = _nanoseconds(after.phase_at)
    stay = _stay(owner, before, after, ends)
    if not after.phase.ended:
        return (stay,)
    return (_whole(owner, after, ends, after.reason or str(after.phase), after.message), stay)


def rollout_context(uid: str, record: RolloutStatus) -> SpanContext:
    """The span of a whole rollout."""
    digest = hashlib.sha256(f"penstock-rollout/{uid}/{record.candidate}/{record.started_at}".encode()).digest()
    return SpanContext(int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1, sampled=True)


def _whole(owner: tuple[str, str, str], record: RolloutStatus, ends: int, verdict: str, message: str) -> SpanRecord:
    begins = _nanoseconds(record.started_at)
    return SpanRecord(
        names.SPAN_ROLLOUT,
        rollout_context(owner[2], record),
        None,
        begins,
        max(begins, ends),
        attributes={
            **_attributes(owner, record),
            names.ATTR_ROLLOUT_VERDICT: verdict,
            names.ATTR_ROLLOUT_MESSAGE: message,
            names.ATTR_ROLLOUT_HARM: record.harm,
        },
        error=message if record.reason else None,
    )


def _stay(owner: tuple[str, str, str], before: RolloutStatus, after: RolloutStatus, ends: int) -> SpanRecord:
    begins = _nanoseconds(before.phase_at)
    root = rollout_context(owner[2], before)
    evidence = {f"{names.ATTR_ROLLOUT_PROOF}.{each.name}": each.proof for each in after.metrics}
    return SpanRecord(
        names.SPAN_ROLLOUT_PHASE,
        phase_context(root, str(before.phase), before.phase_at),
        root,
        begins,
        max(begins, ends),
        attributes={
            **_attributes(owner, before),
            names.ATTR_ROLLOUT_PHASE: str(before.phase),
            names.ATTR_ROLLOUT_WEIGHT: before.weight,
            names.ATTR_ROLLOUT_VERDICT: after.reason or str(after.phase),
            names.ATTR_ROLLOUT_MESSAGE: after.message,
            names.ATTR_ROLLOUT_HARM: after.harm,
            **evidence,
        },
    )


def _attributes(owner: tuple[str, str, str], record: RolloutStatus) -> dict[str, str | int | float | bool]:
    namespace, name, _ = owner
    return {
        names.ATTR_NAMESPACE: namespace,
        names.ATTR_MODEL: name,
        names.ATTR_REVISION: record.candidate,
        names.ATTR_ROLLOUT_STABLE: record.stable,
        names.ATTR_ROLLOUT_TYPE: str(record.type),
    }


def _nanoseconds(moment: str) -> int:
    return int(epoch(moment)) * _NANOSECONDS
