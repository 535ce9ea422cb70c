"""The trace of a scaling decision: a span for each change of the number of replicas, with what was seen, what decided, and what bound it.

Nothing is remembered: the ids follow from the deployment and the change before, so that what is told twice, since an operator was
killed between the telling and the writing of the status, has the same ids both times.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Final

from penstock.api.v1alpha1 import InferenceDeploymentStatus, ScalingChange
from penstock.api.verdicts import epoch
from penstock.telemetry import names
from penstock.telemetry.spans import SpanContext, SpanRecord
from penstock_operator.deployment.news import scalings

_NANOSECONDS: Final = 1_000_000_000


def scaling_spans(
    owner: tuple[str, str, str], before: InferenceDeploymentStatus, after: InferenceDeploymentStatus
) -> tuple[SpanRecord, ...]:
    """The spans of changes that are new in a status; the first number of all is no change.

    Args:
        owner: the deployment's namespace, name and uid.
        before: the status as it was.
        after: as it is now.
    """
    new, history = list(scalings(before, after)), after.scaling_history
    return tuple(
        _span(owner, last, change, after.active_revision or "") for last, change in pairwise(history) if change in new
    )


def _span(owner: tuple[str, str, str], last: ScalingChange, change: ScalingChange, revision: str) -> SpanRecord:
    namespace, name, uid = owner
    said = f"penstock-scaling/{uid}/{last.time}/{last.to_replicas}/{change.to_replicas}"
    digest = hashlib.sha256(said.encode()).digest()
    context = SpanContext(int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1, sampled=True)
    at = int(epoch(change.time)) * _NANOSECONDS
    bound = {names.ATTR_SCALING_BOUND: str(change.bound_by)} if change.bound_by else {}
    return SpanRecord(
        names.SPAN_SCALING,
        context,
        None,
        at,
        at,
        attributes={
            names.ATTR_NAMESPACE: namespace,
            names.ATTR_MODEL: name,
            names.ATTR_REVISION: revision,
            names.ATTR_SCALING_FROM: change.from_replicas,
            names.ATTR_SCALING_TO: change.to_replicas,
            names.ATTR_SCALING_RULE: str(change.rule),
            names.ATTR_SCALING_REASON: change.reason,
            **bound,
            **{f"{names.ATTR_SCALING_INPUT}.{each}": float(value) for each, value in change.inputs.items()},
        },
    )
