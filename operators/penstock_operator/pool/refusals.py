"""What to do where the API refuses a pool's pods: by the words in which it does."""

from __future__ import annotations

import re
from typing import Final

_LIMITS: Final = "set spec.managed.head.cpuLimit, resources.limits in spec.managed.podTemplate, or the cpu and memory of head and workerGroups"
_OF_QUOTA: Final = "exceeded quota"
_REMEDIES: Final = (
    (
        _OF_QUOTA,
        f"Have the ResourceQuota raised, free some of it, or ask for less: {_LIMITS}. While a pool is replaced it takes that twice.",
    ),
    (
        "must specify ",
        "Give each container that is named both requests and limits, in spec.managed.podTemplate.spec.containers.",
    ),
    (
        "(maximum|minimum) .* usage per |limit to request ratio|must be less than or equal to .* limit",
        f"A LimitRange of the namespace bounds pods: {_LIMITS}.",
    ),
    (
        "violates PodSecurity",
        "Say in spec.managed.podTemplate what the namespace's pod security standard wants; leave out cache.hostPath.",
    ),
    (
        "denied( the)? request",
        "Say what the policy wants in spec.managed.podTemplate, as labels, annotations or another field, or have it changed.",
    ),
)
"""The API server's words (ResourceQuota, LimitRange, validation, PodSecurity, policies and webhooks) as patterns, and the remedy."""


def is_of_quota(message: str) -> bool:
    """Whether a `ResourceQuota` is what refuses."""
    return _OF_QUOTA in message


def with_remedy(message: str) -> str:
    """A refusal with what to do about it, where that is known."""
    remedy = next((each for pattern, each in _REMEDIES if re.search(pattern, message)), None)
    if remedy is None:
        return message
    return f"{message.rstrip()}{'' if message.rstrip().endswith('.') else '.'} {remedy}"
