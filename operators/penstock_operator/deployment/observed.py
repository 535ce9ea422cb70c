"""What the planner is told. All of it was read a moment ago; nothing is remembered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from penstock.api.access import APIKey, Authentication
from penstock.api.conditions import Reason
from penstock.api.optimization import OptimizationProfileSpec, OptimizationRun
from penstock.api.pool import GroupStatus, WorkerGroup
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.names import SERVE_DEPLOYMENT
from penstock.routing.leases import RouteStatus
from penstock.serving.arguments import BuildArguments, Move
from penstock_operator.deployment.application import ReplicaNetwork
from penstock_operator.quota.plan import Excess


class ApplicationState(StrEnum):
    """Serve's states of an application."""

    NOT_STARTED = "NOT_STARTED"
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"


@dataclass(frozen=True, slots=True)
class ObservedReplica:
    """A replica that runs."""

    id: str
    """Serve's."""
    node: str
    """Ray's id of the node that it is on."""
    started: float = 0.0
    """Epoch seconds."""


@dataclass(frozen=True, slots=True)
class ObservedApplication:
    """A Serve application as it is."""

    name: str
    state: ApplicationState
    message: str = ""
    """Serve's message on the application, then the one on its deployment."""
    running: int = 0
    wanted: int = 0
    """Replicas that Serve is to run now, without the one more that is there while one moves."""
    changing: bool = False
    """Whether replicas come or go, or take other settings."""
    replicas: tuple[ObservedReplica, ...] = ()
    """Those that run, where Serve says on which nodes."""
    move: Move | None = None
    """A replica that is moved to another node, or the last one that was, as the replicas were told."""
    waiting_since: float | None = None
    """Epoch seconds since which the longest-waiting replica has no node; None where none waits."""
    building: bool = False
    """Whether Serve has still to build it, and lists no replica. It does so on a node with the replicas' labels."""
    config: Mapping[str, Any] | None = None
    """Echo of what was deployed; None where it was not by REST, or the application is going."""
    arguments: BuildArguments | None = None
    """Ours, from the echo; None for an application that is not ours."""


@dataclass(frozen=True, slots=True)
class Node:
    """A Ray node that is alive. Resources by Ray's names: CPU in cores, memory in bytes, GPU in pieces."""

    name: str
    total: Mapping[str, float]
    available: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    """Ray's."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool that answers."""

    serve_address: str
    applications: tuple[ObservedApplication, ...] = ()
    """All of the Ray cluster's, also those that are not ours."""
    nodes: tuple[Node, ...] = ()
    groups: tuple[WorkerGroup, ...] = ()
    """Of a managed pool's spec; none of an existing pool."""
    workers: tuple[GroupStatus, ...] = ()
    """How far the workers of each group are, and what keeps them from running, as the pool's status has it."""


@dataclass(frozen=True, slots=True)
class PoolProblem:
    """Why a pool cannot be used now."""

    reason: Reason
    message: str
    exists: bool = True
    """Whether there is a pool object that may come to answer."""
    empty: bool = False
    """Whether it is known to run nothing, so that nothing is to be taken down there."""
    groups: tuple[WorkerGroup, ...] = ()
    """Of a managed pool's spec."""


@dataclass(frozen=True, slots=True)
class ObservedGateway:
    """A gateway's view of this model; `route` is None where it knows nothing of it."""

    address: str
    url: str
    route: RouteStatus | None
    instance: str = ""
    """Its process; empty where it does not say."""
    complete: bool = True
    """Whether it has been told all routes."""
    features: frozenset[str] = frozenset()
    """What it can take that former releases could not; see `penstock.routing.fleet`."""


@dataclass(frozen=True, slots=True)
class GatewayProblem:
    """A gateway that does not answer."""

    message: str
    refuses: bool = False
    """Whether it answers, and does not know the operator: it takes requests, and can answer none."""


@dataclass(frozen=True, slots=True)
class ProfileProblem:
    """Why a profile cannot be used now: it is not there, it is not valid, or this operator runs no optimization."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class OptimizationView:
    """What is known of a deployment's optimization."""

    profile: OptimizationProfileSpec | ProfileProblem | None = None
    """Of the profile that the spec names; None where it names none."""
    runs: tuple[OptimizationRun, ...] = ()
    """All that this deployment owns, also those of a former spec, without those that are going."""


@dataclass(frozen=True, slots=True)
class Observed:
    """All that decides what happens to one `InferenceDeployment`."""

    deployment: InferenceDeployment
    pool: Pool | PoolProblem
    gateways: tuple[ObservedGateway | GatewayProblem, ...] = ()
    """Those that requests come through."""
    joining: tuple[ObservedGateway, ...] = ()
    """Fresh ones, which are told the route too, but get no requests yet and say nothing of how the model does."""
    network: ReplicaNetwork = field(default_factory=ReplicaNetwork)
    optimization: OptimizationView = field(default_factory=OptimizationView)
    quota: Excess | None = None
    """Why the namespace's quota leaves no room for it."""
    spare_replicas: int | None = None
    """How many replicas more than it may have the quota leaves room for; None: it bounds none."""
    keys: tuple[APIKey, ...] = ()
    """Every API key of the namespace."""
    default_authentication: Authentication = Authentication.ANONYMOUS
    """Where `spec.access` does not say."""


def declared_move(config: Mapping[str, Any] | None) -> Move | None:
    """What an application's replicas are told of a move."""
    said = declared_settings(config).get("move")
    try:
        return None if said is None else Move.model_validate(said)
    except ValidationError:
        return None  # of another release


def declared_settings(config: Mapping[str, Any] | None) -> Mapping[str, object]:
    """`user_config` of our deployment in the echo of what was deployed."""
    for each in (config or {}).get("deployments", ()):
        if each.get("name") == SERVE_DEPLOYMENT:
            found = each.get("user_config")
            return found if isinstance(found, Mapping) else {}
    return {}


def applications_of(deployment: InferenceDeployment, pool: Pool) -> dict[str, ObservedApplication]:
    """This deployment's applications by revision, without those that are going."""
    key = (deployment.metadata.namespace, deployment.metadata.name)
    return {
        each.arguments.replica.revision: each
        for each in pool.applications
        if each.arguments is not None
        and (each.arguments.owner.namespace, each.arguments.owner.name) == key
        and each.state is not ApplicationState.DELETING
        and each.config is not None
    }
