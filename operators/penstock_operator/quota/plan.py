"""What a namespace's deployments take of its `TenantQuota`, and which of them it leaves no room for.

Each counts at the most replicas that it may have. The policies in `manifests/policies` refuse at apply what does not
fit; but they go by a status that may be a moment old, so that here the same is decided again, by what there is: the
oldest come first (by creation, then by name), and one that does not fit keeps those after it waiting too, as it does at
apply. What runs is never stopped by a quota.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from typing import Final

from penstock.api.conditions import QuotaCondition, Reason
from penstock.api.quantity import parse_quantity, readable_bytes
from penstock.api.quota import QuotaAmounts, TenantQuota, TenantQuotaStatus
from penstock.api.rollout import BaselineKind
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.api.verdicts import condition, false, true
from penstock.wording import join_some
from penstock_operator.deployment.application import replica_bounds

_NONE: Final = Decimal(0)
_WHAT_TO_DO: Final = "What runs goes on. Ask for less, delete something, or have the quota raised."
_TOLD: Final = 5


@dataclass(frozen=True, slots=True)
class QuotaUsage:
    """What deployments take at the most replicas that they may have."""

    deployments: int = 0
    replicas: int = 0
    accelerators: Decimal = _NONE
    """With shares."""
    memory: Decimal = _NONE
    """Bytes."""

    def __add__(self, other: QuotaUsage) -> QuotaUsage:
        return QuotaUsage(
            self.deployments + other.deployments,
            self.replicas + other.replicas,
            self.accelerators + other.accelerators,
            self.memory + other.memory,
        )


@dataclass(frozen=True, slots=True)
class Excess:
    """Why a deployment gets no new replicas."""

    message: str
    replicas: int
    """How many of its replicas the quota leaves room for. Those that run may be more."""


def usage(deployment: InferenceDeployment) -> QuotaUsage:
    """What one deployment takes.

    Raises:
        Invalid: a quantity is none.
    """
    _, replicas = replica_bounds(deployment)
    return _usage_of(deployment, replicas)


def usage_beside(deployment: InferenceDeployment) -> QuotaUsage:
    """What replicas take that stand beside its own for a while: those that a new revision is compared with.

    Raises:
        Invalid: a quantity is none.
    """
    record = deployment.status.rollout
    if record is None or record.baseline is not BaselineKind.YOUNG or not replica_bounds(deployment)[1]:
        return QuotaUsage()
    return replace(_usage_of(deployment, record.replicas), deployments=0)


def spare_replicas(
    deployment: InferenceDeployment, everyone: Iterable[InferenceDeployment], quotas: Iterable[TenantQuota]
) -> int | None:
    """How many replicas more of a deployment the quotas of its namespace leave room for, after all that everyone may have.

    Those that stand beside its own already are not counted. None where nothing bounds them.

    Raises:
        Invalid: a quantity is none.
    """
    others = (each for each in everyone if _order(each) != _order(deployment))
    taken = sum((usage(each) + usage_beside(each) for each in others), usage(deployment))
    accelerators, memory = _size_of_replica(deployment)
    found = []
    for quota in quotas:
        hard = quota.spec.hard
        bounds = (
            (hard.replicas, Decimal(taken.replicas), Decimal(1)),
            (hard.accelerators, taken.accelerators, accelerators),
            (None if hard.memory is None else parse_quantity(hard.memory), taken.memory, memory),
        )
        found += [
            int(max(_NONE, Decimal(most) - used) // one) for most, used, one in bounds if most is not None and one
        ]
    return min(found, default=None)


def _usage_of(deployment: InferenceDeployment, replicas: int) -> QuotaUsage:
    accelerators, memory = _size_of_replica(deployment)
    return QuotaUsage(1, replicas, accelerators * replicas, memory * replicas)


def excess(
    deployment: InferenceDeployment, everyone: Iterable[InferenceDeployment], quotas: Iterable[TenantQuota]
) -> Excess | None:
    """Why the quotas of its namespace leave no room for a deployment; None where all of it fits.

    Args:
        deployment: the one in question.
        everyone: all deployments of the namespace; that one may be among them.
        quotas: of the namespace. Each holds.

    Raises:
        Invalid: a quantity is none.
    """
    asked = usage(deployment)
    if not asked.replicas:
        return None
    older = (each for each in everyone if _order(each) < _order(deployment))
    before = sum((usage(each) + usage_beside(each) for each in older), QuotaUsage())
    found = [each for quota in quotas if (each := _find_excess(quota, deployment, before, asked)) is not None]
    return min(found, key=lambda each: each.replicas, default=None)


def quota_status(quota: TenantQuota, everyone: Sequence[InferenceDeployment], now: float) -> TenantQuotaStatus:
    """The status of one quota, from all deployments of its namespace.

    Raises:
        Invalid: a quantity is none.
    """
    used = sum((usage(each) + usage_beside(each) for each in everyone), QuotaUsage())
    waiting = [
        each.metadata.name for each in sorted(everyone, key=_order) if excess(each, everyone, (quota,)) is not None
    ]
    exceeded = (
        true(Reason.QUOTA_EXCEEDED, f"No new replicas for {join_some(waiting, _TOLD)}. {_WHAT_TO_DO}")
        if waiting
        else false(Reason.WITHIN_QUOTA, "All deployments fit.")
    )
    ready = true(Reason.READY, "The figures are up to date.")
    before, generation = quota.status.conditions, quota.metadata.generation
    return TenantQuotaStatus(
        observed_generation=generation,
        conditions=(
            condition(QuotaCondition.READY, ready, before, generation, now),
            condition(QuotaCondition.EXCEEDED, exceeded, before, generation, now),
        ),
        used=QuotaAmounts(
            deployments=used.deployments,
            replicas=used.replicas,
            accelerators=int(used.accelerators.to_integral_value(ROUND_CEILING)),
            memory=readable_bytes(float(used.memory)),
        ),
        accelerator_shares=f"{used.accelerators.normalize():f}",
    )


def _find_excess(
    quota: TenantQuota, deployment: InferenceDeployment, before: QuotaUsage, asked: QuotaUsage
) -> Excess | None:
    hard, name = quota.spec.hard, quota.metadata.name
    accelerators, memory = _size_of_replica(deployment)
    if hard.memory is not None and not memory:
        message = (
            f"The TenantQuota {name} bounds memory, so that spec.resources.memory must be given. What runs goes on."
        )
        return Excess(message, 0)
    found: list[str] = []
    room = asked.replicas
    bounds = (
        ("deployments", hard.deployments, Decimal(before.deployments), _NONE),
        ("replicas", hard.replicas, Decimal(before.replicas), Decimal(1)),
        ("accelerators", hard.accelerators, before.accelerators, accelerators),
        ("memory", None if hard.memory is None else parse_quantity(hard.memory), before.memory, memory),
    )
    for what, most, taken, one in bounds:
        if most is None:
            continue
        wants = one * asked.replicas if one else Decimal(what == "deployments")
        left = Decimal(most) - taken
        if wants <= left:
            continue
        room = min(room, int(max(left, _NONE) // one) if one else 0)
        found.append(
            f"{_amount(what, Decimal(most))}, of which older deployments take {_amount(what, taken, unit=False)} and this one "
            f"asks for {_amount(what, wants, unit=False)}"
        )
    return Excess(f"The TenantQuota {name} allows {'; '.join(found)}. {_WHAT_TO_DO}", room) if found else None


def _size_of_replica(deployment: InferenceDeployment) -> tuple[Decimal, Decimal]:
    """Accelerators and bytes of one replica."""
    resources = deployment.spec.resources
    accelerators = parse_quantity(resources.accelerator.count) if resources.accelerator else _NONE
    return accelerators, parse_quantity(resources.memory) if resources.memory else _NONE


def _order(deployment: InferenceDeployment) -> tuple[str, str]:
    metadata = deployment.metadata
    return metadata.creation_timestamp or "", metadata.name


def _amount(what: str, amount: Decimal, *, unit: bool = True) -> str:
    text = readable_bytes(float(amount)) if what == "memory" else f"{amount.normalize():f}"
    return f"{text} {what}" if unit else text
