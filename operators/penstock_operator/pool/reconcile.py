"""Says of a `ServingPool` whether it can be used, and drops applications whose deployment is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic import ValidationError

from penstock.api.conditions import PoolCondition, Reason
from penstock.api.meta import ConditionStatus
from penstock.api.pool import PoolCapacity, ServingPool, ServingPoolStatus
from penstock.errors import Invalid, Unavailable
from penstock.planning.arguments import Owner
from penstock.planning.conditions import Verdict, condition, false, transitions, true
from penstock.planning.names import ACCELERATOR_LABEL, POOL_MANAGER
from penstock.planning.observed import Node, PoolProblem
from penstock.planning.quantities import readable_bytes
from penstock_operator.pool.directory import INFERENCE_DEPLOYMENT, SERVING_POOL, PoolDirectory
from penstock_operator.pool.writer import PoolWriter
from penstock_operator.runtime.cluster import Cluster, Key, Manifest, NotFound, key_of
from penstock_operator.runtime.controller import Result

_RESYNC_SECONDS: Final = 60.0
_PROBLEM_SECONDS: Final = 10.0


class PoolReconciler:
    """Observe, clean up, one status write.

    Args:
        cluster: where the objects are.
        pools: finds Ray clusters.
        record: takes events: object, whether a warning, reason, message.
        clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        cluster: Cluster,
        pools: PoolDirectory,
        record: Callable[[Manifest, bool, str, str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._pools = pools
        self._record = record
        self._clock = clock

    def reconcile(self, key: Key) -> Result:
        """See `penstock_operator.runtime.controller.Reconcile`."""
        manifest = self._cluster.get(SERVING_POOL, key)
        if manifest is None:
            return Result()
        try:
            pool = ServingPool.model_validate(manifest)
        except ValidationError as error:
            raise Invalid(Reason.INVALID_SPEC, f"{key} is not valid: {error}") from error
        if pool.metadata.deletion_timestamp is not None:
            return Result()
        users = self._users(key)
        writer = self._pools.writer(pool)
        if isinstance(writer, PoolProblem):
            self._write(manifest, pool, false(writer.reason, writer.message), None, len(users))
            return Result(_PROBLEM_SECONDS, writer.message)
        try:
            version, nodes = writer.client.version(), writer.client.nodes()
            self._drop_orphans(writer)
        except Unavailable as error:
            self._write(manifest, pool, false(Reason(error.reason), error.message), None, len(users))
            return Result(_PROBLEM_SECONDS, error.message)
        self._write(manifest, pool, true(Reason.READY, f"Ray {version} answers."), (version, nodes), len(users))
        return Result(_RESYNC_SECONDS, "nodes may have changed; nobody tells")

    def _users(self, key: Key) -> list[Key]:
        listing = self._cluster.list(INFERENCE_DEPLOYMENT, key.namespace)
        return [key_of(each) for each in listing.items if _pool_name(each) == key.name]

    def _drop_orphans(self, writer: PoolWriter) -> None:
        """An owner is gone only if the API says so of it, one by one: a list may be partial, an answer is not."""
        owners = {each.arguments.owner for each in writer.applications() if each.arguments is not None}
        gone = {owner for owner in owners if self._is_gone(owner)}
        if gone:
            writer.drop_orphans(lambda owner: owner in gone)

    def _is_gone(self, owner: Owner) -> bool:
        return self._cluster.get(INFERENCE_DEPLOYMENT, Key(owner.namespace, owner.name)) is None

    def _write(
        self,
        manifest: Manifest,
        pool: ServingPool,
        verdict: Verdict,
        seen: tuple[str, Sequence[Node]] | None,
        deployments: int,
    ) -> None:
        before, metadata = pool.status, pool.metadata
        ready = condition(PoolCondition.READY, verdict, before.conditions, metadata.generation, self._clock())
        status = ServingPoolStatus(
            observed_generation=metadata.generation,
            conditions=(ready,),
            ray_version=seen[0] if seen else before.ray_version,
            capacity=capacity(seen[1]) if seen else before.capacity,
            deployments=deployments,
        )
        if status == before:
            return
        body = {
            "apiVersion": pool.api_version,
            "kind": pool.kind,
            "metadata": {"name": metadata.name, "namespace": metadata.namespace},
            "status": status.model_dump(mode="json", exclude_none=True),
        }
        try:
            self._cluster.apply_status(SERVING_POOL, body, POOL_MANAGER)
        except NotFound:
            return  # deleted meanwhile
        for each in transitions(before.conditions, status.conditions):
            warning = each.status is ConditionStatus.FALSE
            self._record(manifest, warning, each.reason, f"{each.type}: {each.message}")


def capacity(nodes: Sequence[Node]) -> PoolCapacity:
    """What the nodes have in all. Memory is rounded down to whole mebibytes."""
    accelerators: dict[str, float] = {}
    for node in nodes:
        kind = node.labels.get(ACCELERATOR_LABEL)
        if kind is not None and node.total.get("GPU"):
            accelerators[kind] = accelerators.get(kind, 0.0) + node.total["GPU"]
    memory = sum(node.total.get("memory", 0.0) for node in nodes)
    return PoolCapacity(
        nodes=len(nodes),
        cpu=f"{sum(node.total.get('CPU', 0.0) for node in nodes):g}",
        memory=readable_bytes(memory // 2**20 * 2**20),
        accelerators={kind: f"{count:g}" for kind, count in sorted(accelerators.items())},
    )


def pool_of(manifest: Manifest) -> Key:
    """The pool that an `InferenceDeployment` names."""
    return Key(manifest["metadata"].get("namespace") or "", _pool_name(manifest))


def _pool_name(manifest: Mapping[str, object]) -> str:
    spec = manifest.get("spec")
    reference = spec.get("poolRef") if isinstance(spec, dict) else None
    return str(reference.get("name") or "default") if isinstance(reference, dict) else "default"


def deployments_of(pool: Key, manifests: Sequence[Manifest]) -> list[Key]:
    """The deployments that name a pool."""
    return [key_of(each) for each in manifests if pool_of(each) == pool]
