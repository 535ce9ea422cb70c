"""Looks at a rollout again and again: shows it as it goes, and waits until a command was carried out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from rich.console import Console
from rich.live import Live
from rich.text import Text

from penstock.api.conditions import DeploymentCondition, Reason
from penstock.api.meta import Condition, ConditionStatus
from penstock.api.reading import read
from penstock.api.rollout import RolloutPhase, RolloutStatus
from penstock.api.v1alpha1 import InferenceDeployment
from penstock_cli.objects.resources import utc_now
from penstock_cli.objects.showing import say
from penstock_cli.rollouts.showing import describe, describe_line, document
from penstock_operator.kinds import INFERENCE_DEPLOYMENT
from penstock_operator.runtime.cluster import Cluster, Key, NotFound

_POLL_SECONDS = 0.5
_COMMAND_POLL_SECONDS = 0.2
WAITING = "the operator has not looked at the present spec yet"


class RolloutExit(IntEnum):
    """With what `penstock rollout` ends."""

    DONE = 0
    """It was promoted, or told, or shown."""
    ROLLED_BACK = 1
    NOT_NOW = 2
    """What was asked makes no sense now; nothing was done."""
    TIME_IS_UP = 3


@dataclass(frozen=True, slots=True)
class Follower:
    """Shows a rollout until it ends."""

    cluster: Cluster
    key: Key
    until_taken_over: bool
    """Whether it ends once the new revision gets all requests, rather than once the former one has gone."""
    as_json: bool
    """A line of JSON for each change, rather than text."""

    def follow(self, seconds: float | None) -> RolloutExit:
        """Show it as it goes.

        Args:
            seconds: how long at most; None: until it ends.

        Raises:
            NotFound: the deployment is gone.
        """
        console = Console()
        if self.as_json or not console.is_terminal:
            return self._follow(seconds, self._line)
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            return self._follow(seconds, lambda seen: live.update(Text(self._text(seen)), refresh=True))

    def _follow(self, seconds: float | None, show: Callable[[InferenceDeployment], None]) -> RolloutExit:
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            seen = find_deployment(self.cluster, self.key)
            show(seen)
            ended = outcome(seen, until_taken_over=self.until_taken_over)
            if ended is not None:
                return ended
            if deadline is not None and time.monotonic() > deadline:
                return RolloutExit.TIME_IS_UP
            time.sleep(_POLL_SECONDS)

    def _text(self, seen: InferenceDeployment) -> str:
        return "\n".join(tell(seen, utc_now()))

    @property
    def _line(self) -> Callable[[InferenceDeployment], None]:
        """Says it where it is not what was said before."""
        said = ""

        def show(seen: InferenceDeployment) -> None:
            nonlocal said
            rollout = present_rollout(seen)
            if self.as_json:
                line = json.dumps(document(self.key.name, self.key.namespace, rollout))
            else:
                told = [describe_line(rollout), *_hindrance(seen)] if rollout is not None else tell(seen, utc_now())
                line = " ".join(told)
            if line != said:
                said = line
                say(line if self.as_json else f"{utc_now():%H:%M:%S} {line}")

        return show


def find_deployment(cluster: Cluster, key: Key) -> InferenceDeployment:
    """The deployment.

    Raises:
        NotFound: there is none of that name.
    """
    manifest = cluster.get(INFERENCE_DEPLOYMENT, key)
    if manifest is None:
        raise NotFound("NotFound", f"inferencedeployments {key.name!r} not found in {key.namespace}")
    return read(InferenceDeployment, manifest)


def present_rollout(deployment: InferenceDeployment) -> RolloutStatus | None:
    """Its rollout; None where there is none, or what the status says is of a former spec."""
    return deployment.status.rollout if _is_seen(deployment) else None


def outcome(deployment: InferenceDeployment, *, until_taken_over: bool) -> RolloutExit | None:
    """How the rollout ended; None while it goes on."""
    if not _is_seen(deployment):
        return None
    rollout = deployment.status.rollout
    if rollout is None:
        return RolloutExit.DONE if _is_settled(deployment) else None
    match rollout.phase:
        case RolloutPhase.PROMOTED:
            return RolloutExit.DONE
        case RolloutPhase.ROLLED_BACK:
            return RolloutExit.ROLLED_BACK
        case RolloutPhase.WATCHING:
            return RolloutExit.DONE if until_taken_over else None
        case _:
            return None


def tell(deployment: InferenceDeployment, now: datetime) -> list[str]:
    """What there is to say of the deployment's rollout, in lines."""
    name, status = deployment.metadata.name, deployment.status
    if not _is_seen(deployment):
        return [f"{name}: {WAITING}"]
    if status.rollout is not None:
        return [*describe(name, deployment.spec.rollout, status.rollout, now), *_hindrance(deployment)]
    if status.candidate_revision is not None:
        unjudged = f"{name}: revision {status.candidate_revision} takes over as soon as it answers, and is not judged"
        return [unjudged, *_hindrance(deployment)]
    serves = f"revision {status.active_revision} serves" if status.active_revision else "nothing serves yet"
    return [f"{name}: no new revision was judged; {serves}", *_hindrance(deployment)]


def wait_until_obeyed(cluster: Cluster, key: Key, command: str, seconds: float) -> RolloutStatus | None:
    """Wait until the operator has carried out a command.

    Returns:
        The rollout since; None where the time is up.

    Raises:
        NotFound: the deployment is gone.
    """
    deadline = time.monotonic() + seconds
    while True:
        rollout = find_deployment(cluster, key).status.rollout
        if rollout is not None and rollout.obeyed == command:
            return rollout
        if time.monotonic() > deadline:
            return None
        time.sleep(_COMMAND_POLL_SECONDS)


def _is_seen(deployment: InferenceDeployment) -> bool:
    return deployment.status.observed_generation >= deployment.metadata.generation


def _progressing(deployment: InferenceDeployment) -> Condition | None:
    return next((each for each in deployment.status.conditions if each.type == DeploymentCondition.PROGRESSING), None)


def _is_settled(deployment: InferenceDeployment) -> bool:
    """Whether nothing is rolled out, without a judgement either. What does not start, or cannot be carried out, is not."""
    found = _progressing(deployment)
    return found is None or (found.status is ConditionStatus.TRUE and found.reason == Reason.ROLLED_OUT)


def _hindrance(deployment: InferenceDeployment) -> list[str]:
    """What is in the way of a new revision, where the rollout itself does not say."""
    found, rollout = _progressing(deployment), deployment.status.rollout
    if found is None or found.status is not ConditionStatus.FALSE or (rollout is not None and rollout.reason):
        return []
    return [f"{found.reason}: {found.message}"]
