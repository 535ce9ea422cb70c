"""What replicas have shown to others, of whose answers theirs are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from penstock.api.rollout import RolloutSample
from penstock.api.verdicts import timestamp
from penstock.routing.outcomes import ReplicaOutcomes
from penstock_operator.rollout.sight import ArmSight, RolloutSight

_MOST_TOLD: Final = 5


@dataclass(frozen=True, slots=True)
class ShownCount:
    """Of all replicas that show their requests."""

    samples: int
    made: int
    """Of inputs that no client ever sent."""
    supplied: int
    """Of these, to samples that the deployment's model or profile names."""
    replayed: int
    """Inputs of clients that were shown once more, for their times alone."""


def outcomes_of(arm: ArmSight) -> dict[str, ReplicaOutcomes]:
    """By replica, of those that tell."""
    return {name: each.outcomes for name, each in sorted(arm.replicas.items()) if each.outcomes is not None}


def find_showing(sight: RolloutSight, showing: str, shown: str) -> Mapping[str, ReplicaOutcomes]:
    """The replicas of revision `showing` that have shown requests to revision `shown`."""
    return {
        name: each
        for name, each in outcomes_of(sight.arm(showing)).items()
        if each.shadow is not None and each.shadow.revision == shown
    }


def count_shown(sight: RolloutSight) -> ShownCount:
    """What the candidate was shown."""
    told = [each.shadow for each in find_showing(sight, sight.stable, sight.candidate).values() if each.shadow]
    made = [each.made for each in told if each.made is not None]
    return ShownCount(
        samples=sum(each.samples for each in told) + sum(each.samples for each in made),
        made=sum(each.samples for each in made),
        supplied=sum(each.supplied for each in made),
        replayed=sum(each.replayed for each in told),
    )


def tell_shown(shown: ShownCount) -> str:
    """How many answers were compared, and to what."""
    named = f" ({shown.supplied} of those to samples that were named)" if shown.supplied else ""
    made = f", {shown.made} of them to inputs that no client sent{named}" if shown.made else ""
    again = f"; {shown.replayed} were shown once more for their times" if shown.replayed else ""
    return f"{shown.samples} answers were compared{made}{again}"


def tell_worst(showing: Mapping[str, ReplicaOutcomes]) -> tuple[RolloutSample, ...]:
    """The samples whose answers differed most beyond what two copies of one revision differ."""
    found = [sample for each in showing.values() if each.shadow for sample in each.shadow.worst]
    found.sort(key=lambda sample: (sample.twin_loss - sample.loss, sample.at))
    return tuple(
        RolloutSample(
            at=timestamp(sample.at),
            loss=f"{sample.loss:.3g}",
            twin_loss=f"{sample.twin_loss:.3g}",
            output=sample.output,
            told=sample.told,
        )
        for sample in found[:_MOST_TOLD]
    )
