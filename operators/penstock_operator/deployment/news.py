"""What an `InferenceDeployment`'s events tell of a new status."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.api.conditions import DeploymentCondition
from penstock.api.meta import Condition, ConditionStatus
from penstock.api.v1alpha1 import InferenceDeploymentStatus
from penstock.api.verdicts import merge_alike, transitions
from penstock_operator.runtime.loop.news import News, news_of

_STEPS = frozenset({DeploymentCondition.READY, DeploymentCondition.PROGRESSING, DeploymentCondition.PROFILE_APPLIED})


def news(before: InferenceDeploymentStatus, after: InferenceDeploymentStatus) -> Iterator[News]:
    """One event for each change that is none of another's consequences."""
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
