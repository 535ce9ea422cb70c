"""What people say to a rollout, by an annotation that stays."""

from __future__ import annotations

from penstock.api.rollout import RolloutPhase, RolloutStatus
from penstock.api.rollout_commands import ROLLOUT_ANNOTATION, RolloutCommand, RolloutVerb, parse_command
from penstock.api.v1alpha1 import InferenceDeployment


def said_to(deployment: InferenceDeployment) -> RolloutCommand | None:
    """What people say to a deployment's rollout."""
    return parse_command(deployment.metadata.annotations.get(ROLLOUT_ANNOTATION, ""))


def is_retried(record: RolloutStatus, said: RolloutCommand | None) -> bool:
    """Whether a revision that was rolled back is to be judged anew."""
    return (
        said is not None
        and said.verb is RolloutVerb.RETRY
        and said.revision == record.candidate
        and str(said) != record.obeyed
        and record.phase is RolloutPhase.ROLLED_BACK
    )
