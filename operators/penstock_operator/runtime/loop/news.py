"""What is worth an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from penstock.api.conditions import facts_of
from penstock.api.meta import Condition, ConditionStatus, Manifest


class News(NamedTuple):
    """An event to be recorded."""

    warning: bool
    reason: str
    message: str


def news_of(condition: Condition, message: str) -> News:
    """That a condition changed; whether that warns is its reason's."""
    warning = condition.status is ConditionStatus.FALSE and facts_of(condition.reason).warns
    return News(warning, condition.reason, message)


Record = Callable[[Manifest, News], None]
"""Records what is news of an object as an event."""
