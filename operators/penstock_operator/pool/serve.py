"""The whole list of a Ray cluster's applications, of which each deployment changes only its own.

A PUT replaces the list, so a pool has one writer, and what nobody asked to change is sent back as Serve echoed it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from penstock.serving.arguments import Owner
from penstock_operator.deployment.application import ServeApplication
from penstock_operator.deployment.observed import ApplicationState, ObservedApplication

OwnerKey = tuple[str, str]
"""Namespace and name of an `InferenceDeployment`."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What is to be declared."""

    applications: tuple[ServeApplication, ...]
    changed: bool
    """False: it is what is deployed already."""


def merge(
    deployed: Iterable[ObservedApplication],
    wanted: Mapping[OwnerKey, tuple[ServeApplication, ...]],
    orphaned: Callable[[Owner], bool] = lambda _: False,
) -> Aggregate:
    """The new list.

    Args:
        deployed: what Serve lists now.
        wanted: by owner, all that it should have. Owners that are not named keep what they have.
        orphaned: whether an owner is known to be gone; what it had is dropped.
    """
    present = [each for each in deployed if each.config is not None and each.state is not ApplicationState.DELETING]
    before = {each.name: dict(each.config or {}) for each in present}
    foreign = {each.name for each in present if each.arguments is None}
    result = {
        each.name: before[each.name]
        for each in present
        if each.arguments is None
        or not ((each.arguments.owner.namespace, each.arguments.owner.name) in wanted or orphaned(each.arguments.owner))
    }
    for applications in wanted.values():
        result |= {each["name"]: each for each in applications if each["name"] not in foreign}
    ordered = tuple(result[name] for name in sorted(result))
    return Aggregate(ordered, result != before)
