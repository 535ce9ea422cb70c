"""Objects of ours that this release cannot read: of a newer release, of an older CRD, or edited by hand.

Nothing is planned for them, and all that is theirs stays. That nobody acts is said where people look for it, in their status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from penstock.api.conditions import Reason
from penstock.api.meta import ConditionStatus, Manifest
from penstock.api.verdicts import timestamp
from penstock.errors import Invalid

_WHAT_TO_DO: Final = (
    "Nothing is done for this object until it is corrected, or until a release that knows it runs; what it has stays."
)
_MOST: Final = 2000
"""Characters of what is wrong."""


def unreadable_message(error: Invalid) -> str:
    """What is wrong, and what becomes of the object."""
    return f"{error.message[:_MOST]}. {_WHAT_TO_DO}"


def unreadable_statuses(manifest: Manifest, condition: str, message: str, now: float) -> tuple[Manifest, ...]:
    """The status that says that an object cannot be read, where it does not say so yet, with all else that it says.

    A second one says nothing else, for where it is the status that is wrong.

    Args:
        manifest: as the API served it.
        condition: the type of the condition that says whether all is well.
        message: why it cannot be read.
        now: seconds since the Unix epoch.
    """
    before = _to_mapping(manifest.get("status"))
    conditions = _conditions(before.get("conditions"), condition, message, manifest, now)
    if before.get("conditions") == conditions:
        return ()
    return {**before, "conditions": conditions}, {"conditions": conditions}


def _conditions(before: Any, kind: str, message: str, manifest: Manifest, now: float) -> list[dict[str, Any]]:
    listed = [dict(each) for each in before if isinstance(each, Mapping)] if isinstance(before, Sequence) else []
    said = next((each for each in listed if each.get("type") == kind), {})
    kept = said.get("lastTransitionTime") if said.get("status") == ConditionStatus.FALSE else None
    told = {
        "type": kind,
        "status": str(ConditionStatus.FALSE),
        "reason": str(Reason.INVALID_SPEC),
        "message": message,
        "lastTransitionTime": kept or timestamp(now),
        "observedGeneration": manifest["metadata"].get("generation", 0),
    }
    if not said:
        return [*listed, told]
    return [{**each, **told} if each is said else each for each in listed]


def _to_mapping(value: Any) -> Manifest:
    return dict(value) if isinstance(value, Mapping) else {}
