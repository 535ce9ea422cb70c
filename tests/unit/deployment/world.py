"""Builds observations for the planner's tables."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from penstock import names
from penstock.api.v1alpha1 import InferenceDeployment, InferenceDeploymentStatus
from penstock.routing.access import RouteAccess
from penstock.routing.leases import ReplicaStats, RequestsJoined, Route, RouteReplica, RouteStatus
from penstock.serving.arguments import Attempt, BuildArguments
from penstock_operator.deployment import application
from penstock_operator.deployment.observed import (
    ApplicationState,
    GatewayProblem,
    Node,
    Observed,
    ObservedApplication,
    ObservedGateway,
    Pool,
    PoolProblem,
)

NOW = 1_000_000.0
SERVE = "http://ray:8000"
UID = "0c1e"
OLD_MODEL = "file:///models/old"
NEW_MODEL = "file:///models/new"
FIRST_ATTEMPT = Attempt(attempted_at=int(NOW) - 100)
AT_REST = ReplicaStats()


def deployment(
    model: str = NEW_MODEL,
    *,
    scaling: dict[str, Any] | None = None,
    resources: dict[str, Any] | None = None,
    batching: dict[str, Any] | None = None,
    access: dict[str, Any] | None = None,
    status: InferenceDeploymentStatus | None = None,
    deleted_at: str | None = None,
    finalizers: tuple[str, ...] = (names.FINALIZER,),
) -> InferenceDeployment:
    spec: dict[str, Any] = {"model": {"storageUri": model, "modelFormat": "onnx"}}
    optional = {"scaling": scaling, "resources": resources, "batching": batching, "access": access}
    spec |= {key: value for key, value in optional.items() if value is not None}
    metadata = {"name": "digits", "namespace": "vision", "uid": UID, "generation": 3, "finalizers": list(finalizers)}
    if deleted_at is not None:
        metadata["deletionTimestamp"] = deleted_at
    parsed = InferenceDeployment.model_validate({"metadata": metadata, "spec": spec})
    return parsed if status is None else parsed.model_copy(update={"status": status})


def revision_of(model: str) -> str:
    return names.revision(deployment(model))


OLD = revision_of(OLD_MODEL)
NEW = revision_of(NEW_MODEL)


def serve_app(
    of: InferenceDeployment,
    state: ApplicationState = ApplicationState.RUNNING,
    *,
    running: int = 1,
    wanted: int = 1,
    message: str = "",
    waiting_since: float | None = None,
    attempt: Attempt = FIRST_ATTEMPT,
) -> ObservedApplication:
    config = application.build(of, names.revision(of), attempt, application.ReplicaNetwork())
    return ObservedApplication(
        name=config["name"],
        state=state,
        message=message,
        running=running,
        wanted=wanted,
        waiting_since=waiting_since,
        config=config,
        arguments=BuildArguments.model_validate(config["args"]),
    )


def gateway(
    declared: dict[str, int] | None,
    replicas: dict[str, int] | None = None,
    *,
    listed_only: dict[str, int] | None = None,
    held: int = 0,
    stats: ReplicaStats = AT_REST,
    wake_url: str | None = None,
    digest: str = "",
    settled: bool = True,
    joining: RequestsJoined | None = None,
) -> ObservedGateway:
    """A gateway with so many replicas by revision that receive, and so many that are only listed."""
    rows = [
        RouteReplica(
            replica_id=f"{revision}-{index}-{receiving}",
            version="1",
            revision=revision,
            digest=digest,
            address=f"127.0.0.1:{index + 1000}",
            receiving=receiving,
            expires_in_seconds=5,
            stats=stats,
            joining=joining,
        )
        for receiving, counts in ((True, replicas or {}), (False, listed_only or {}))
        for revision, count in counts.items()
        for index in range(count)
    ]
    route = (
        Route(
            namespace="vision",
            model="digits",
            revisions=declared,
            wake_url=wake_url,
            sampling_ratio=0.01,
            access=RouteAccess(required=False),
        )
        if declared is not None
        else None
    )
    status = RouteStatus(
        namespace="vision", model="digits", declared=route, replicas=rows, held_requests=held, settled=settled
    )
    return ObservedGateway("http://agent", "http://gateway:8080", status)


@dataclass(frozen=True)
class World:
    """One observation, to be varied."""

    of: InferenceDeployment
    apps: tuple[ObservedApplication, ...] = ()
    gateways: tuple[ObservedGateway | GatewayProblem, ...] = field(default_factory=lambda: (gateway(None),))
    nodes: tuple[Node, ...] = ()
    problem: PoolProblem | None = None

    def observed(self) -> Observed:
        pool = self.problem or Pool(SERVE, self.apps, self.nodes)
        return Observed(self.of, pool, self.gateways)

    def but(self, **changes: Any) -> World:
        return replace(self, **changes)
