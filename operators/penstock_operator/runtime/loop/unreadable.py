"""Objects of ours that this release cannot read: of a newer release, of an older CRD, or edited by hand.

Nothing is planned for them, and all that is theirs stays. That nobody acts is said where people look for it, in their status.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from penstock.api.conditions import Reason
from penstock.api.meta import ConditionStatus
from penstock.api.verdicts import timestamp
from penstock.errors import Invalid
from penstock_operator.runtime.cluster import Cluster, Manifest, NotFound, ResourceKind, identity
from penstock_operator.runtime.loop.news import News, Record

log = logging.getLogger(__name__)

_WHAT_TO_DO: Final = (
    "Nothing is done for this object until it is corrected, or until a release that knows it runs; what it has stays."
)
_MOST: Final = 2000
"""Characters of what is wrong."""


def tell_unreadable(
    cluster: Cluster,
    kind: ResourceKind,
    manifest: Manifest,
    error: Invalid,
    *,
    condition: str,
    manager: str,
    now: float,
    record: Record,
) -> None:
    """Say in an object's status that it cannot be read, and why. All else that its status says stays.

    Args:
        cluster: where it is.
        kind: of the object.
        manifest: as the API served it.
        error: what is wrong with it.
        condition: the type of the condition that says whether all is well.
        manager: the field manager of the status.
        now: seconds since the Unix epoch.
        record: takes events.

    Raises:
        Unavailable: the API does not answer, or refuses.
    """
    before = _mapping(manifest.get("status"))
    message = f"{error.message[:_MOST]}. {_WHAT_TO_DO}"
    conditions = _conditions(before.get("conditions"), condition, message, manifest, now)
    if before.get("conditions") == conditions:
        return
    body = identity(kind, manifest)
    for status in ({**before, "conditions": conditions}, {"conditions": conditions}):
        with suppress(NotFound):  # deleted meanwhile
            try:
                cluster.apply_status(kind, {**body, "status": status}, manager)
            except NotFound:
                raise
            except Invalid as refused:
                # It may be the status that is wrong: then only the condition is written.
                log.warning("the status of %s %s: %s", kind.kind, manifest["metadata"].get("name"), refused.message)
                continue
            record(manifest, News(warning=True, reason=Reason.INVALID_SPEC, message=f"{condition}: {message}"))
        return


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


def _mapping(value: Any) -> Manifest:
    return dict(value) if isinstance(value, Mapping) else {}
