"""Follows a deployment from its profile to the model that serves."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from penstock.api.conditions import DeploymentCondition, Reason, RunCondition, facts_of
from penstock.api.meta import Condition, ConditionStatus
from penstock.api.optimization import OptimizationRun
from penstock.api.reading import read
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.errors import Unavailable
from penstock_cli.demo.load import HttpAnswer, send
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, OPTIMIZATION_RUN
from penstock_operator.runtime.cluster import Cluster, Key

_POLL_SECONDS = 0.2
_EXCHANGE_PAUSE_SECONDS = 0.02


def wait_for_verdict(
    cluster: Cluster, key: Key, seconds: float, say: Callable[[str], None], check: Callable[[], None]
) -> OptimizationRun:
    """Wait until the deployment's run is over.

    Args:
        cluster: where it is.
        key: of the deployment.
        seconds: how long to wait.
        say: told how the search gets on.
        check: called on the way; raises to give up.

    Raises:
        Unavailable: the profile cannot be applied, the search could not be run, or the time is up.
    """
    deadline = time.monotonic() + seconds
    while True:
        check()
        deployment = _deployment(cluster, key)
        run = _run(cluster, key, deployment)
        if run is not None and run.status.completion_time is not None:
            if run.status.verdict is None:
                raise Unavailable(Reason.OPTIMIZATION_FAILED, run.status.summary)
            return run
        applied = _profile_condition(deployment)
        if applied.status is ConditionStatus.FALSE and facts_of(applied.reason).warns:
            raise Unavailable(applied.reason, applied.message)
        said = describe_search(run) if run is not None else applied.message
        if time.monotonic() > deadline:
            raise Unavailable(Reason.OPTIMIZATION_FAILED, f"there was no verdict within {seconds:.0f} s. {said}")
        say(said or "waiting for the operator")
        time.sleep(_POLL_SECONDS)


def wait_until_optimized(
    cluster: Cluster, key: Key, seconds: float, say: Callable[[str], None], check: Callable[[], None]
) -> InferenceDeployment:
    """Wait until the optimized revision alone serves.

    Raises:
        Unavailable: it does not start, or the time is up.
    """
    deadline = time.monotonic() + seconds
    while True:
        check()
        deployment = _deployment(cluster, key)
        applied = _profile_condition(deployment)
        ready = _condition(deployment, DeploymentCondition.READY)
        settled = ready is not None and ready.status is ConditionStatus.TRUE
        if applied.status is ConditionStatus.TRUE and settled and deployment.status.candidate_revision is None:
            return deployment
        if applied.reason == Reason.ARTIFACT_REFUSED or time.monotonic() > deadline:
            raise Unavailable(applied.reason, f"the optimized model does not serve: {applied.message}")
        say(applied.message)
        time.sleep(_POLL_SECONDS)


def describe_search(run: OptimizationRun) -> str:
    """What a search does now, and below it what it has found so far."""
    progress = run.status.progress
    if progress.message:
        return f"{progress.message}\nSo far: {progress.found}" if progress.found else progress.message
    complete = next((each for each in run.status.conditions if each.type == RunCondition.COMPLETE), None)
    return complete.message if complete else ""


@dataclass(slots=True)
class Takeover:
    """Requests while one revision takes the place of another."""

    answers: list[HttpAnswer] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """How many got no answer."""
        return sum(each.predicted is None for each in self.answers)


@contextmanager
def send_meanwhile(url: str, body: bytes, trust: ssl.SSLContext | None = None) -> Iterator[Takeover]:
    """Send one request after the other, some fifty a second, until the context ends."""
    exchange, stop = Takeover(), threading.Event()

    def ask() -> None:
        while not stop.wait(_EXCHANGE_PAUSE_SECONDS):
            exchange.answers.append(send(url, body, trust=trust))

    thread = threading.Thread(target=ask, name="exchange", daemon=True)
    thread.start()
    try:
        yield exchange
    finally:
        stop.set()
        thread.join()


def _deployment(cluster: Cluster, key: Key) -> InferenceDeployment:
    manifest = cluster.get(INFERENCE_DEPLOYMENT, key)
    if manifest is None:
        raise Unavailable(Reason.TERMINATING, f"InferenceDeployment {key} was deleted while it was waited for")
    return read(InferenceDeployment, manifest)


def _run(cluster: Cluster, key: Key, deployment: InferenceDeployment) -> OptimizationRun | None:
    name = deployment.status.optimization_run
    if name is None or deployment.status.observed_generation < deployment.metadata.generation:
        return None
    manifest = cluster.get(OPTIMIZATION_RUN, Key(key.namespace, name))
    return None if manifest is None else read(OptimizationRun, manifest)


def _profile_condition(deployment: InferenceDeployment) -> Condition:
    found = _condition(deployment, DeploymentCondition.PROFILE_APPLIED)
    return found or Condition(
        type=DeploymentCondition.PROFILE_APPLIED, status=ConditionStatus.UNKNOWN, reason=Reason.PENDING
    )


def _condition(deployment: InferenceDeployment, kind: DeploymentCondition) -> Condition | None:
    """What is said of the present spec."""
    generation = deployment.metadata.generation
    current = (each for each in deployment.status.conditions if each.observed_generation >= generation)
    return next((each for each in current if each.type == kind), None)
