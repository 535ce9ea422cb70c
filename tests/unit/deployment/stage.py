"""A small world in which plans are carried out as Ray Serve and the gateways would, second by second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.unit.deployment.world import SERVE

from penstock.api.rollout import RolloutStatus
from penstock.api.v1alpha1 import InferenceDeployment, InferenceDeploymentStatus
from penstock.routing.fleet import ORDERS
from penstock.routing.leases import ReplicaStats, Route, RouteReplica, RouteStatus
from penstock.routing.outcomes import (
    LATENCY_SECONDS,
    LOSS_EDGES,
    MadeOutcomes,
    ReplicaOutcomes,
    ShadowOutcomes,
    ShownOutcomes,
)
from penstock.serving.arguments import BuildArguments
from penstock_operator.deployment.observed import (
    ApplicationState,
    Observed,
    ObservedApplication,
    ObservedGateway,
    OptimizationView,
    Pool,
)
from penstock_operator.deployment.plan import Plan, plan

NOON = 1_000_000.0
SECONDS = 2.0
"""Between two looks."""


@dataclass(frozen=True)
class Behaviour:
    """How a revision's replicas do."""

    failed: float = 0.0
    """Share of requests."""
    seconds: float = 0.004
    """Of the usual answer; one in a hundred takes four times as long."""
    loss: float = 0.0
    """Of its answers to what it is shown, beyond what two copies of the other revision differ."""
    dies: float = 0.0
    """Every so many seconds, where that is not 0."""
    starts: bool = True
    """Whether there is a node for its replicas."""
    broken: str = ""
    """Why its replicas cannot start, as Serve tells it."""
    silent: bool = False
    """Whether requests to it are never answered."""


@dataclass
class ActingReplica:
    """One replica."""

    name: str
    revision: str
    born: float
    answered: float = 0.0
    failed: float = 0.0
    late: int = 0
    seconds: dict[int, float] = field(default_factory=dict)
    samples: float = 0.0
    excess: dict[int, float] = field(default_factory=dict)
    made: float = 0.0
    made_excess: dict[int, float] = field(default_factory=dict)
    shown_answered: float = 0.0
    shown_failed: float = 0.0
    shown_seconds: dict[int, float] = field(default_factory=dict)


def bucket_of(value: float, edges: tuple[float, ...]) -> int:
    return next((place for place, edge in enumerate(edges) if value <= edge), len(edges))


@dataclass
class Stage:
    """What there is, from one look to the next."""

    of: InferenceDeployment
    behaviours: Mapping[str, Behaviour] = field(default_factory=dict)
    rate: float = 50.0
    """Requests a second, of all clients."""
    features: frozenset[str] = frozenset({ORDERS})
    optimization: OptimizationView = field(default_factory=OptimizationView)
    now: float = NOON
    status: InferenceDeploymentStatus = field(default_factory=InferenceDeploymentStatus)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By revision."""
    replicas: list[ActingReplica] = field(default_factory=list)
    since: dict[str, float] = field(default_factory=dict)
    """By revision: since when a replica waits for a node."""
    route: Route | None = None
    told: str = ""
    """The annotation."""
    shows: bool = True
    """Whether replicas show anything to others."""
    born: int = 0
    idle_since: float = NOON
    seen: list[Plan] = field(default_factory=list)

    def act(self, seconds: float = SECONDS) -> Plan:
        """One look, and what becomes of its plan by the next."""
        made = plan(self.observed(), self.now)
        self.seen.append(made)
        if made.applications is not None:
            self.configs = {each["args"]["replica"]["revision"]: each for each in made.applications}
        if made.route is not None:
            self.route = made.route
        if made.status is not None:
            self.status = InferenceDeploymentStatus.model_validate_json(made.status.model_dump_json())
        self._scale()
        self._serve(seconds)
        self.now += seconds
        self._die(seconds)
        return made

    def until(self, phase: str, most: int = 400) -> list[Plan]:
        """Looks until a rollout is in a phase."""
        before = len(self.seen)
        for _ in range(most):
            self.act()
            if self.rollout is not None and self.rollout.phase == phase:
                return self.seen[before:]
        raise AssertionError(f"never {phase}: {self.rollout}")

    @property
    def rollout(self) -> RolloutStatus | None:
        return self.status.rollout

    @property
    def judged(self) -> RolloutStatus:
        assert self.status.rollout is not None
        return self.status.rollout

    @property
    def weights(self) -> dict[str, int]:
        return dict(self.route.revisions) if self.route is not None else {}

    def size(self, revision: str) -> int:
        return sum(each.revision == revision for each in self.replicas)

    def behaviour(self, revision: str) -> Behaviour:
        return self.behaviours.get(revision, self.behaviours.get(revision.removesuffix("-b"), Behaviour()))

    def observed(self) -> Observed:
        metadata = self.of.metadata.model_copy(update={"annotations": {"penstock.dev/rollout": self.told}})
        of = self.of.model_copy(update={"metadata": metadata, "status": self.status})
        apps = tuple(self._application(revision, config) for revision, config in sorted(self.configs.items()))
        seen = ObservedGateway("http://agent", "http://gateway:8080", self._listed(), features=self.features)
        return Observed(of, Pool(SERVE, apps), (seen,), optimization=self.optimization)

    def _application(self, revision: str, config: dict[str, Any]) -> ObservedApplication:
        wanted, running = self._wanted(config, revision), self.size(revision)
        broken = self.behaviour(revision).broken
        state = ApplicationState.RUNNING if running >= wanted else ApplicationState.DEPLOYING
        return ObservedApplication(
            name=config["name"],
            state=ApplicationState.DEPLOY_FAILED if broken else state,
            message=broken,
            running=running,
            wanted=wanted,
            waiting_since=self.since.get(revision),
            config=config,
            arguments=BuildArguments.model_validate(config["args"]),
        )

    def _wanted(self, config: dict[str, Any], revision: str) -> int:
        scaling = config["deployments"][0]["autoscaling_config"]
        least, most = scaling["min_replicas"], scaling["max_replicas"]
        return int(min(most, max(least, self.size(revision))))

    def _scale(self) -> None:
        for revision, config in self.configs.items():
            wanted = self._wanted(config, revision)
            for _ in range(self.size(revision), wanted):
                if self.behaviour(revision).broken:
                    break
                if not self.behaviour(revision).starts:
                    self.since.setdefault(revision, self.now)
                    break
                self.since.pop(revision, None)
                self._bear(revision)
            extra = [each for each in self.replicas if each.revision == revision][wanted:]
            self.replicas = [each for each in self.replicas if each not in extra]
        self.replicas = [each for each in self.replicas if each.revision in self.configs]
        self.since = {revision: at for revision, at in self.since.items() if revision in self.configs}

    def _bear(self, revision: str) -> None:
        self.born += 1
        self.replicas.append(ActingReplica(f"r{self.born:07d}", revision, self.now))

    def _serve(self, seconds: float) -> None:
        present = {revision: weight for revision, weight in self.weights.items() if self.size(revision)}
        whole = sum(present.values())
        if self.rate:
            self.idle_since = self.now + seconds
        for replica in self.replicas:
            share = present.get(replica.revision, 0) / whole / self.size(replica.revision) if whole else 0.0
            self._answer(replica, self.rate * seconds * share)
        self._show(seconds)

    def _answer(self, replica: ActingReplica, requests: float) -> None:
        does = self.behaviour(replica.revision)
        if does.silent:
            replica.late += round(requests)
            return
        replica.failed += requests * does.failed
        good = requests * (1 - does.failed)
        replica.answered += good
        for seconds, part in ((does.seconds, 0.99), (4 * does.seconds, 0.01)):
            place = bucket_of(seconds, LATENCY_SECONDS)
            replica.seconds[place] = replica.seconds.get(place, 0.0) + good * part

    def _show(self, seconds: float) -> None:
        told = self.route.comparison if self.route is not None else None
        if told is None or not self.size(told.candidate) or not self.shows:
            return
        showing = [each for each in self.replicas if each.revision == told.stable]
        place = bucket_of(self.behaviour(told.candidate).loss, LOSS_EDGES)
        samples = min(10.0, self.rate * told.shadow_share) * seconds
        made = 10.0 * seconds - samples if told.replay else 0.0
        for replica in showing:
            replica.samples += samples / len(showing)
            replica.made += made / len(showing)
            replica.excess[place] = replica.excess.get(place, 0.0) + samples / len(showing)
            replica.made_excess[place] = replica.made_excess.get(place, 0.0) + made / len(showing)
        young = [each for each in self.replicas if each.revision == told.baseline]
        for arm in ([each for each in self.replicas if each.revision == told.candidate], young or showing):
            for replica in arm:
                self._answer_shown(replica, (samples + made) / len(arm))

    def _answer_shown(self, replica: ActingReplica, requests: float) -> None:
        does = self.behaviour(replica.revision)
        if does.silent:
            return
        replica.shown_failed += requests * does.failed
        good = requests * (1 - does.failed)
        replica.shown_answered += good
        for seconds, part in ((does.seconds, 0.99), (4 * does.seconds, 0.01)):
            place = bucket_of(seconds, LATENCY_SECONDS)
            replica.shown_seconds[place] = replica.shown_seconds.get(place, 0.0) + good * part

    def _die(self, seconds: float) -> None:
        for replica in list(self.replicas):
            every = self.behaviour(replica.revision).dies
            if every and (self.now - replica.born) // every > (self.now - seconds - replica.born) // every:
                self.replicas.remove(replica)

    def _listed(self) -> RouteStatus:
        told = self.route.comparison if self.route is not None else None
        rows = [
            RouteReplica(
                replica_id=each.name,
                version="1",
                revision=each.revision,
                address="127.0.0.1:1",
                receiving=self.weights.get(each.revision, 0) > 0,
                expires_in_seconds=5,
                stats=ReplicaStats(idle_seconds=self.now - self.idle_since + (60 if not self.rate else 0)),
                outcomes=self._outcomes(each, told.candidate) if told is not None else None,
            )
            for each in self.replicas
        ]
        return RouteStatus(namespace="vision", model="digits", declared=self.route, replicas=rows, held_requests=0)

    def _outcomes(self, replica: ActingReplica, shown: str) -> ReplicaOutcomes:
        return ReplicaOutcomes(
            age_seconds=self.now - replica.born,
            answered=int(replica.answered),
            failed=int(replica.failed),
            seconds={place: int(count) for place, count in replica.seconds.items() if int(count)},
            late=replica.late,
            cpu_seconds=replica.answered * 0.001,
            memory_bytes=100_000_000,
            shown=ShownOutcomes(
                answered=int(replica.shown_answered),
                failed=int(replica.shown_failed),
                seconds={place: int(count) for place, count in replica.shown_seconds.items() if int(count)},
                cpu_seconds=replica.shown_answered * 0.001,
            )
            if replica.shown_answered + replica.shown_failed
            else None,
            shadow=ShadowOutcomes(
                revision=shown,
                samples=int(replica.samples),
                excess={place: int(count) for place, count in replica.excess.items()},
                made=MadeOutcomes(
                    samples=int(replica.made),
                    excess={place: int(count) for place, count in replica.made_excess.items()},
                )
                if replica.made
                else None,
            )
            if replica.samples + replica.made
            else None,
        )
