"""Fields that may be `Auto`: what was measured, or a default where nothing was."""

from __future__ import annotations

import re
from typing import Final

from penstock.api.conditions import Reason
from penstock.api.meta import AUTO
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.errors import Invalid

DEFAULT_MAX_BATCH_SIZE: Final = 32
DEFAULT_MAX_DELAY_MILLISECONDS: Final = 0
DEFAULT_TARGET_IN_FLIGHT_REQUESTS: Final = 16
_WHOLE: Final = re.compile(r"[0-9]{1,9}")


def max_batch_size(deployment: InferenceDeployment) -> int:
    """Rows in a batch at most.

    Raises:
        Invalid: the field is neither Auto nor such a number.
    """
    return _parse_whole(
        deployment.spec.batching.max_batch_size, DEFAULT_MAX_BATCH_SIZE, range(1, 4097), "batching.maxBatchSize"
    )


def max_delay_milliseconds(deployment: InferenceDeployment) -> int:
    """How long a batch may wait for more.

    Raises:
        Invalid: the field is neither Auto nor such a number.
    """
    return _parse_whole(
        deployment.spec.batching.max_delay_milliseconds,
        DEFAULT_MAX_DELAY_MILLISECONDS,
        range(10_001),
        "batching.maxDelayMilliseconds",
    )


def target_in_flight_requests(deployment: InferenceDeployment) -> int:
    """Requests in flight that one replica should carry.

    Raises:
        Invalid: the field is neither Auto nor such a number.
    """
    return _parse_whole(
        deployment.spec.scaling.target_in_flight_requests,
        DEFAULT_TARGET_IN_FLIGHT_REQUESTS,
        range(1, 100_001),
        "scaling.targetInFlightRequests",
    )


def _parse_whole(value: str, default: int, allowed: range, field: str) -> int:
    if value == AUTO:
        return default
    if _WHOLE.fullmatch(value) is None or int(value) not in allowed:
        raise Invalid(
            Reason.INVALID_SPEC,
            f'spec.{field} is "{value}": write a whole number from {allowed[0]} to {allowed[-1]}, or {AUTO}',
        )
    return int(value)
