"""Brings one `InferenceDeployment` to what its spec says."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from penstock.api.conditions import DeploymentCondition, facts_of
from penstock.api.meta import Condition, ConditionStatus
from penstock.api.reading import read
from penstock.api.v1alpha1 import InferenceDeployment, InferenceDeploymentStatus
from penstock.api.verdicts import merge_alike, transitions
from penstock.errors import Invalid, Unavailable
from penstock.names import DEPLOYMENT_MANAGER, FINALIZER
from penstock.routing.leases import Route, RouteStatus
from penstock.telemetry.spans import SpanRecord
from penstock.telemetry.startup import operator_spans
from penstock_operator.clients.gateway import GatewayClient
from penstock_operator.deployment.access import in_words_of_gateway
from penstock_operator.deployment.observe import Observer
from penstock_operator.deployment.observed import Gateway, GatewayProblem, Observed, Pool, applications_of
from penstock_operator.deployment.plan import Finalizer, Plan, invalid_route, invalid_status, plan
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.optimization.directory import OPTIMIZATION_RUN
from penstock_operator.pool.directory import INFERENCE_DEPLOYMENT
from penstock_operator.pool.writer import PoolWriter
from penstock_operator.runtime.cluster import Cluster, Key, Manifest, NotFound, create_unless_there
from penstock_operator.runtime.controller import Result
from penstock_operator.runtime.requeue import Requeue
from penstock_operator.runtime.unreadable import tell_unreadable

log = logging.getLogger(__name__)

Record = Callable[[Manifest, bool, str, str], None]
"""Records an event: on which object, whether it is a warning, reason, message."""


class DeploymentReconciler:
    """Observe, plan, apply, one status write.

    Args:
        cluster: where the objects are.
        observer: reads what lies outside.
        fleet: the gateways, where routes are declared.
        record: takes events.
        tried: told which gateway (address, instance), not yet complete, has been told all there was to tell of a key.
        clock: seconds since the Unix epoch.
        tell: takes the spans of a start.
    """

    def __init__(
        self,
        cluster: Cluster,
        observer: Observer,
        fleet: Fleet,
        *,
        record: Record,
        tried: Callable[[str, str, Key], None],
        clock: Callable[[], float] = time.time,
        tell: Callable[[Sequence[SpanRecord]], None] = lambda _: None,
        tell_keys: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._tell_keys = tell_keys
        self._cluster = cluster
        self._observer = observer
        self._tell_start = tell
        self._fleet = fleet
        self._tried = tried
        self._record = record
        self._clock = clock

    def reconcile(self, key: Key) -> Result:
        """See `penstock_operator.runtime.controller.Reconcile`."""
        manifest = self._cluster.get(INFERENCE_DEPLOYMENT, key)
        if manifest is None:
            return Result()
        try:
            observed, writer = self._observer.observe(read(InferenceDeployment, manifest))
        except Invalid as error:
            if self._without_plan(key, manifest):
                return Result()
            self._tell_unreadable(manifest, error)
            raise
        try:
            return self._carry_out(manifest, observed, writer)
        finally:
            self._told(key, (*observed.gateways, *observed.joining))

    def _without_plan(self, key: Key, manifest: Manifest) -> bool:
        """Of what cannot be read nothing is planned, and what it has stays; True where it was going, and is let go.

        What such a one has in its pool is dropped there, since its owner is gone.
        """
        seen = self._fleet.look(key.namespace, key.name)
        gateways = (*seen.gateways, *seen.joining)
        going = manifest["metadata"].get("deletionTimestamp") is not None
        if going:
            self._delete_route(key, gateways)
            self._cluster.remove_finalizer(INFERENCE_DEPLOYMENT, manifest, FINALIZER)
        self._told(key, gateways)
        return going

    def _told(self, key: Key, gateways: Iterable[Gateway | GatewayProblem]) -> None:
        """There is no more to tell of a key now, whatever came of it: no object may keep a gateway from being complete."""
        for each in gateways:
            if isinstance(each, Gateway) and not each.complete:
                self._tried(each.address, each.instance, key)

    def _carry_out(self, manifest: Manifest, observed: Observed, writer: PoolWriter | None) -> Result:
        deployment, now = observed.deployment, self._clock()
        try:
            wanted = plan(observed, now)
        except Invalid as error:
            self._say_invalid(manifest, observed, error, now)
            raise
        try:
            manifest = self._apply(manifest, observed, wanted, writer)
        except Invalid as error:
            self._write(manifest, deployment, invalid_status(observed, error.message, now))
            raise
        if wanted.status is not None and wanted.finalizer is not Finalizer.REMOVE:
            # Before the status is: after a kill between the two it is told again, with the same ids.
            self._tell_start(start_spans(observed, wanted.status))
            self._write(manifest, deployment, wanted.status)
        return _result(wanted.requeue)

    def _say_invalid(self, manifest: Manifest, observed: Observed, error: Invalid, now: float) -> None:
        """Of a spec that cannot be planned. What cannot be planned need not have a revision either."""
        try:
            if (route := invalid_route(observed, error.message, now)) is not None:
                self._declare(observed, route)
            self._write(manifest, observed.deployment, invalid_status(observed, error.message, now))
        except Invalid:
            self._tell_unreadable(manifest, error)

    def _tell_unreadable(self, manifest: Manifest, error: Invalid) -> None:
        tell_unreadable(
            self._cluster,
            INFERENCE_DEPLOYMENT,
            manifest,
            error,
            condition=DeploymentCondition.READY,
            manager=DEPLOYMENT_MANAGER,
            now=self._clock(),
            record=self._record,
        )

    def _apply(self, manifest: Manifest, observed: Observed, wanted: Plan, writer: PoolWriter | None) -> Manifest:
        """In an order in which a kill at any line leaves nothing that the next run does not find."""
        if wanted.finalizer is Finalizer.ADD:
            manifest = self._cluster.add_finalizer(INFERENCE_DEPLOYMENT, manifest, FINALIZER)
        metadata = observed.deployment.metadata
        if wanted.run is not None:
            create_unless_there(self._cluster, OPTIMIZATION_RUN, wanted.run)
        for name in wanted.superseded_runs:
            self._cluster.delete(OPTIMIZATION_RUN, Key(metadata.namespace, name))
        if wanted.delete_route:
            self._delete_route(Key(metadata.namespace, metadata.name), (*observed.gateways, *observed.joining))
        if wanted.route is not None:
            self._declare(observed, wanted.route)
        if wanted.applications is not None and writer is not None:
            current = writer.applications()
            mine = {
                each.name: dict(each.config or {})
                for each in current
                if each.arguments is not None
                and (each.arguments.owner.namespace, each.arguments.owner.name) == (metadata.namespace, metadata.name)
                and each.config is not None
            }
            if mine != {each["name"]: each for each in wanted.applications}:
                writer.declare((metadata.namespace, metadata.name), wanted.applications)
        if wanted.finalizer is Finalizer.REMOVE:
            manifest = self._cluster.remove_finalizer(INFERENCE_DEPLOYMENT, manifest, FINALIZER)
        return manifest

    def _declare(self, observed: Observed, route: Route) -> None:
        for seen in (*observed.gateways, *observed.joining):
            if not isinstance(seen, Gateway):
                continue
            told = in_words_of_gateway(route, seen, observed, self._clock())
            if seen.route is None or seen.route.declared != told:
                # Keys before what they open: a model that a namespace's keys open is closed until they are told.
                self._tell_keys(route.namespace)
                self._tell(seen, route.namespace, route.model, partial(GatewayClient.declare, route=told))

    def _delete_route(self, key: Key, gateways: Iterable[Gateway | GatewayProblem]) -> None:
        for seen in gateways:
            if isinstance(seen, Gateway) and seen.route is not None and seen.route.declared is not None:
                delete = partial(GatewayClient.delete, namespace=key.namespace, model=key.name)
                self._tell(seen, key.namespace, key.name, delete)

    def _tell(
        self, seen: Gateway, namespace: str, model: str, what: Callable[[GatewayClient], RouteStatus | None]
    ) -> None:
        """One gateway that fails must not keep the others, or the pool, from being told; the next look shows it."""
        view = self._fleet.at(seen.address)
        if view is None:
            return  # it is gone
        told = None
        try:
            told = what(view.client)
        except Unavailable as error:
            log.warning("%s", error.message)
        view.changed(namespace, model, told)

    def _write(self, manifest: Manifest, deployment: InferenceDeployment, status: InferenceDeploymentStatus) -> None:
        if status == deployment.status:
            return
        key = deployment.metadata
        content = status.model_dump(mode="json", exclude_none=True)
        body = {
            "apiVersion": deployment.api_version,
            "kind": deployment.kind,
            "metadata": {"name": key.name, "namespace": key.namespace},
            "status": content,
        }
        try:
            self._cluster.apply_status(INFERENCE_DEPLOYMENT, body, DEPLOYMENT_MANAGER)
        except NotFound:
            return  # deleted meanwhile
        failed = {each.type for each in deployment.status.conditions if each.status is ConditionStatus.FALSE}
        changed = transitions(deployment.status.conditions, status.conditions)
        for each, message in merge_alike(each for each in changed if _is_news(each, healed=each.type in failed)):
            warning = each.status is ConditionStatus.FALSE and facts_of(each.reason).warns
            self._record(manifest, warning, each.reason, message)


def _is_news(condition: Condition, *, healed: bool) -> bool:
    ready = condition.type == DeploymentCondition.READY
    steps = {DeploymentCondition.READY, DeploymentCondition.PROGRESSING, DeploymentCondition.PROFILE_APPLIED}
    if condition.status is ConditionStatus.TRUE and condition.type not in steps and not healed:
        return False  # went as it should; the steps tell the story
    # What `Ready` derives from says it too.
    return condition.status is not ConditionStatus.UNKNOWN and not (ready and condition.status is ConditionStatus.FALSE)


def _result(requeue: Requeue | None) -> Result:
    return Result() if requeue is None else Result(requeue.after_seconds, requeue.reason)


def start_spans(observed: Observed, status: InferenceDeploymentStatus) -> tuple[SpanRecord, ...]:
    """The spans of a start, where this status is the first to say that its revision is ready."""
    pool = observed.pool
    if not isinstance(pool, Pool) or status.active_revision is None:
        return ()
    mine = applications_of(observed.deployment, pool).get(status.active_revision)
    if mine is None or mine.arguments is None:
        return ()
    return operator_spans(observed.deployment, status, mine.arguments, observed.optimization.runs)
