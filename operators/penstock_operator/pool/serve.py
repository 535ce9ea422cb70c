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
    foreign = {each.name: dict(each.config or {}) for each in present if each.arguments is None}
    ours = [each for each in present if each.arguments is not None]
    result = dict(foreign)
    for each in ours:
        if each.arguments is None:
            continue
        owner = each.arguments.owner
        if (owner.namespace, owner.name) not in wanted and not orphaned(owner):
            result[each.name] = dict(each.config or {})
    for applications in wanted.values():
        for application in applications:
            if application["name"] not in foreign:
                result[application["name"]] = application
    before = {each.name: dict(each.config or {}) for each in present}
    ordered = tuple(result[name] for name in sorted(result))
    return Aggregate(ordered, result != before)
