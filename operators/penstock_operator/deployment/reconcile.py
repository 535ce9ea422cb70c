"""Brings one `InferenceDeployment` to what its spec says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from penstock.api.conditions import DeploymentCondition
from penstock.api.v1alpha1 import InferenceDeployment, InferenceDeploymentStatus
from penstock.errors import Invalid, Unavailable
from penstock.names import DEPLOYMENT_MANAGER, SCALING_MANAGER
from penstock.telemetry.spans import SpanRecord
from penstock.telemetry.startup import operator_spans
from penstock_operator.deployment import news
from penstock_operator.deployment.number import NumberWrite, number_manifest
from penstock_operator.deployment.observe import Observer
from penstock_operator.deployment.observed import (
    GatewayProblem,
    Observed,
    ObservedApplication,
    ObservedGateway,
    Pool,
    applications_of,
)
from penstock_operator.deployment.plan import Plan, invalid_route, invalid_status, plan
from penstock_operator.deployment.refusal import refused_status, with_refused_number, with_refused_run
from penstock_operator.deployment.routes import RouteWriter
from penstock_operator.deployment.scaling_trace import scaling_spans
from penstock_operator.deployment.status import note_generation
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, OPTIMIZATION_RUN
from penstock_operator.pool.writer import PoolWriter
from penstock_operator.rollout.trace import rollout_spans
from penstock_operator.runtime.cluster import Cluster, Key, Manifest, create_if_absent, is_refusal, key_of
from penstock_operator.runtime.loop.news import News
from penstock_operator.runtime.loop.reconciler import Applied, Failure, Reconciler
from penstock_operator.runtime.metrics import count_scaling
from penstock_operator.runtime.rollout_metrics import show_rollout

_Sight: TypeAlias = tuple[Observed, PoolWriter | None]
"""What was observed, and the writer of the pool where it has one."""
_Done: TypeAlias = Applied[InferenceDeploymentStatus]


class DeploymentReconciler(Reconciler[InferenceDeployment, InferenceDeploymentStatus, _Sight, Plan]):
    """See `Reconciler`.

    Args:
        cluster: where the objects are.
        observer: reads what lies outside.
        fleet: the gateways.
        routes: declares routes to them.
        tried: told which gateway (address, instance), not yet complete, has been told all there was to tell of a key.
        tell: takes the spans of a start.
    """

    kind = INFERENCE_DEPLOYMENT
    model = InferenceDeployment
    condition = DeploymentCondition.READY
    manager = DEPLOYMENT_MANAGER

    def __init__(
        self,
        cluster: Cluster,
        observer: Observer,
        fleet: Fleet,
        routes: RouteWriter,
        *,
        tried: Callable[[str, str, Key], None] = lambda *_: None,
        tell: Callable[[Sequence[SpanRecord]], None] = lambda _: None,
    ) -> None:
        self._cluster = cluster
        self._observer = observer
        self._fleet = fleet
        self._routes = routes
        self._tried = tried
        self._tell_start = tell

    def needs_finalizer(self, resource: InferenceDeployment) -> bool:
        """What it has in its pool and at the gateways goes before it does."""
        del resource
        return True

    def observe(self, resource: InferenceDeployment) -> _Sight:
        """See `Reconciler`."""
        return self._observer.observe(resource)

    def plan(self, observed: _Sight, now: float) -> Plan:
        """See `penstock_operator.deployment.plan`."""
        return plan(observed[0], now)

    def apply(self, observed: _Sight, plan: Plan, now: float) -> _Done:
        """See `Reconciler`."""
        (seen, writer), metadata = observed, observed[0].deployment.metadata
        key = Key(metadata.namespace, metadata.name)
        refused = "" if plan.run is None else self._create_run(plan.run)
        for name in plan.superseded_runs:
            self._cluster.delete(OPTIMIZATION_RUN, Key(key.namespace, name))
        if plan.delete_route:
            self._routes.delete(key, (*seen.gateways, *seen.joining))
        if plan.route is not None:
            self._routes.declare(seen, plan.route)
        if plan.applications is not None and writer is not None:
            wanted = {each["name"]: each for each in plan.applications}
            if _configurations(writer.applications(), key) != wanted:
                writer.declare((key.namespace, key.name), plan.applications)
        if plan.release:
            show_rollout(*key, None, None)
            return Applied(requeue=plan.requeue, release=True)
        status = plan.status
        if plan.number is not None and status is not None:
            generation, unwritten = self._write_number(seen.deployment, plan.number)
            status = note_generation(status, generation)
            status = with_refused_number(seen.deployment, status, unwritten, now) if unwritten else status
        if status is not None:
            show_rollout(*key, seen.deployment.status.rollout, status.rollout)
            # Before the status is written: after a kill between the two it is told again, with the same ids.
            owner = (*key, seen.deployment.metadata.uid)
            judged = rollout_spans(owner, seen.deployment.status.rollout, status.rollout)
            scaled = scaling_spans(owner, seen.deployment.status, status)
            self._tell_start((*start_spans(seen, status), *judged, *scaled))
            status = with_refused_run(seen.deployment, status, refused, now) if refused else status
        return Applied(status, plan.requeue)

    def _create_run(self, run: Manifest) -> str:
        """Why it could not be made, in the API's words: no reason for a model not to be served. Raises `Unavailable`."""
        try:
            create_if_absent(self._cluster, OPTIMIZATION_RUN, run)
        except (Invalid, Unavailable) as error:
            if isinstance(error, Unavailable) and not is_refusal(error):
                raise
            return error.message
        return ""

    def announce(self, before: InferenceDeploymentStatus, after: InferenceDeploymentStatus) -> Iterator[News]:
        """See `penstock_operator.deployment.news`."""
        for change in news.scalings(before, after):
            count_scaling(change.rule, is_up=change.to_replicas > change.from_replicas)
        return news.news(before, after)

    def settle_unreadable(self, manifest: Manifest) -> bool:
        """What such a one has in its pool is dropped there, since its owner is gone."""
        key = key_of(manifest)
        seen = self._fleet.look(key.namespace, key.name)
        gateways = (*seen.gateways, *seen.joining)
        going = manifest["metadata"].get("deletionTimestamp") is not None
        if going:
            self._routes.delete(key, gateways)
        self._note_tried(key, gateways)
        return going

    def explain(self, failure: Failure[InferenceDeployment, _Sight, Plan]) -> InferenceDeploymentStatus | None:
        """What cannot be planned need not have a revision either; then it is told as what cannot be read is.

        Of what does not answer at the moment nothing is said; of what the API refuses, its words.
        """
        if is_refusal(failure.error):
            metadata = failure.resource.metadata
            told = self._fleet.look(metadata.namespace, metadata.name)
            # There is nothing to tell of it for now, and other tenants' gateways must not wait for that.
            self._note_tried(Key(metadata.namespace, metadata.name), (*told.gateways, *told.joining))
            return refused_status(failure.resource, failure.error.message, failure.now)
        if failure.observed is None or isinstance(failure.error, Unavailable):
            return None
        seen, message = failure.observed[0], failure.error.message
        if failure.plan is None and (route := invalid_route(seen, message, failure.now)) is not None:
            self._routes.declare(seen, route)
        return invalid_status(seen, message, failure.now)

    def conclude(self, observed: _Sight) -> None:
        """There is no more to tell of it now: no object may keep a gateway from being complete."""
        seen, metadata = observed[0], observed[0].deployment.metadata
        self._note_tried(Key(metadata.namespace, metadata.name), (*seen.gateways, *seen.joining))

    def _write_number(self, deployment: InferenceDeployment, number: NumberWrite) -> tuple[int, str]:
        """Only where nobody else has changed the object since: the generation after it, and why it was refused. Raises `Conflict`.

        A policy of the cluster that refuses it must not keep the deployment from serving.
        """
        metadata = deployment.metadata
        try:
            written = self._cluster.apply(INFERENCE_DEPLOYMENT, number_manifest(deployment, number), SCALING_MANAGER)
        except (Invalid, Unavailable) as error:
            return metadata.generation, error.message
        return int(written["metadata"].get("generation", metadata.generation)), ""

    def _note_tried(self, key: Key, gateways: Iterable[ObservedGateway | GatewayProblem]) -> None:
        for each in gateways:
            if isinstance(each, ObservedGateway) and not each.complete:
                self._tried(each.address, each.instance, key)


def _configurations(applications: Iterable[ObservedApplication], owner: Key) -> dict[str, Manifest]:
    """By name, of the applications of one owner."""
    return {
        each.name: dict(each.config)
        for each in applications
        if each.arguments is not None and each.config is not None
        if (each.arguments.owner.namespace, each.arguments.owner.name) == owner
    }


def start_spans(observed: Observed, status: InferenceDeploymentStatus) -> tuple[SpanRecord, ...]:
    """The spans of a start, where this status is the first to say that its revision is ready."""
    pool = observed.pool
    if not isinstance(pool, Pool) or status.active_revision is None:
        return ()
    mine = applications_of(observed.deployment, pool).get(status.active_revision)
    if mine is None or mine.arguments is None:
        return ()
    return operator_spans(observed.deployment, status, mine.arguments, observed.optimization.runs)
