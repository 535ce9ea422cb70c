"""What an `InferenceDeployment`'s events tell of a new status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from penstock.api.conditions import DeploymentCondition
from penstock.api.meta import Condition, ConditionStatus
from penstock.api.v1alpha1 import InferenceDeploymentStatus, ScalingChange
from penstock.api.verdicts import merge_alike, transitions
from penstock_operator.runtime.loop.news import News, news_of

SCALED: Final = "Scaled"
"""Reason of the event that the number of replicas was changed by load."""
_STEPS = frozenset({DeploymentCondition.READY, DeploymentCondition.PROGRESSING, DeploymentCondition.PROFILE_APPLIED})


def scalings(before: InferenceDeploymentStatus, after: InferenceDeploymentStatus) -> Iterator[ScalingChange]:
    """Changes of the number of replicas that are new; the first number of all is no change."""
    known = {(each.time, each.from_replicas, each.to_replicas) for each in before.scaling_history}
    if before.scaling_history:
        yield from (
            each for each in after.scaling_history if (each.time, each.from_replicas, each.to_replicas) not in known
        )


def news(before: InferenceDeploymentStatus, after: InferenceDeploymentStatus) -> Iterator[News]:
    """One event for each change that is none of another's consequences."""
    for change in scalings(before, after):
        bound = f" (bound by: {change.bound_by})" if change.bound_by else ""
        yield News(
            warning=False,
            reason=SCALED,
            message=f"From {change.from_replicas} to {change.to_replicas} replicas: {change.reason}{bound}",
        )
    failed = {each.type for each in before.conditions if each.status is ConditionStatus.FALSE}
    changed = transitions(before.conditions, after.conditions)
    for each, message in merge_alike(each for each in changed if _is_news(each, healed=each.type in failed)):
        yield news_of(each, message)


def _is_news(condition: Condition, *, healed: bool) -> bool:
    ready = condition.type == DeploymentCondition.READY
    if condition.status is ConditionStatus.TRUE and condition.type not in _STEPS and not healed:
        return False  # went as it should; the steps tell the story
    # What `Ready` derives from says it too.
    return condition.status is not ConditionStatus.UNKNOWN and not (ready and condition.status is ConditionStatus.FALSE)
