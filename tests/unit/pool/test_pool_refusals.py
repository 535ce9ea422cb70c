"""What a pool does and says where the API refuses the operator something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.contract.ray_rest_standin import RayStandIn
from tests.telling import Telling, assert_tells
from tests.unit.deployment.world import NEW_MODEL, deployment, serve_app
from tests.unit.pool.test_pool_homes import IMAGE, KEY, add_pool, deploy, told

from penstock.api.conditions import Reason, facts_of
from penstock.api.verdicts import reason_of
from penstock.errors import Unavailable
from penstock_operator.deployment.observed import ApplicationState, PoolProblem
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.pool.clusters import Addresses, RayClusters
from penstock_operator.pool.defaults import DefaultPools
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.pool.kinds import NETWORK_POLICY, POD, RAY_CLUSTER
from penstock_operator.pool.managed import ManagedPools
from penstock_operator.pool.names import ray_token
from penstock_operator.pool.reconcile import PoolReconciler
from penstock_operator.pool.release import PoolRelease
from penstock_operator.runtime.cluster import FORBIDDEN, NO_LABELS, SECRET, Key, Listing, Manifest, ResourceKind
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.loop.reconciler import Runner

WITH_REDIS: Manifest = {
    "managed": {
        "workerGroups": [{"name": "cpu", "cpu": "1", "memory": "2Gi"}],
        "gcsFaultTolerance": {"redisAddress": "redis:6379"},
    }
}


class Strict(EmbeddedCluster):
    """An embedded cluster that refuses what it is told to, by verb and kind."""

    def __init__(self, path: Path) -> None:
        self.refused: dict[tuple[str, ResourceKind], Unavailable] = {}
        super().__init__(path)

    def refuse(self, verb: str, kind: ResourceKind, reason: str = FORBIDDEN) -> None:
        self.refused[verb, kind] = Unavailable(reason, f"{kind.plural}: may not {verb}")

    def _ask(self, verb: str, kind: ResourceKind) -> None:
        if (verb, kind) in self.refused:
            raise self.refused[verb, kind]

    def get(self, kind: ResourceKind, key: Key) -> Manifest | None:
        self._ask("get", kind)
        return super().get(kind, key)

    def list(
        self,
        kind: ResourceKind,
        namespace: str | None = None,
        labels: Mapping[str, str] = NO_LABELS,
        fields: Mapping[str, str] = NO_LABELS,
    ) -> Listing:
        self._ask("list", kind)
        return super().list(kind, namespace, labels, fields)

    def apply(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
        self._ask("apply", kind)
        return super().apply(kind, manifest, field_manager)

    def apply_status(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
        self._ask("tell", kind)
        return super().apply_status(kind, manifest, field_manager)

    def create(self, kind: ResourceKind, manifest: Manifest) -> Manifest:
        self._ask("create", kind)
        return super().create(kind, manifest)

    def add_finalizer(self, kind: ResourceKind, manifest: Manifest, finalizer: str) -> Manifest:
        self._ask("hold", kind)
        return super().add_finalizer(kind, manifest, finalizer)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Strict]:
    made = Strict(tmp_path / "cluster.sqlite")
    yield made
    made.close()


@pytest.fixture
def ray() -> Iterator[RayStandIn]:
    with RayStandIn(deploy_seconds=0.0) as made:
        yield made


def parts(cluster: Strict, ray: RayStandIn | None = None) -> tuple[Runner, PoolDirectory]:
    """The reconciler of pools and their directory. `ray` is where each RayCluster is."""
    url = "http://127.0.0.1:1" if ray is None else ray.url
    rays = RayClusters(cluster, IMAGE, "s", lambda *_: Addresses(url, url))
    directory = PoolDirectory(cluster, rays)
    reconciler = PoolReconciler(
        cluster,
        directory,
        ManagedPools(cluster, rays, directory),
        defaults=DefaultPools(cluster, None),
        release=PoolRelease(cluster, rays),
    )
    return Runner(cluster, reconciler, lambda *_: None), directory


def pool_of(cluster: Strict) -> Manifest:
    found = cluster.get(SERVING_POOL, KEY)
    assert found is not None
    return found


def conditions(cluster: Strict) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in pool_of(cluster)["status"]["conditions"]}


def serving_pool(cluster: Strict, ray: RayStandIn) -> Runner:
    """A pool that is ready."""
    add_pool(cluster)
    ray.token = ray_token("s", pool_of(cluster)["metadata"]["uid"])
    reconciler, _ = parts(cluster, ray)
    reconciler.reconcile(KEY)
    up = [{"type": kind, "status": "True"} for kind in ("HeadPodReady", "RayClusterProvisioned")]
    for each in cluster.list(RAY_CLUSTER).items:
        cluster.apply_status(RAY_CLUSTER, {**each, "status": {"conditions": up}}, "kuberay")
    reconciler.reconcile(KEY)
    assert told(cluster)[0] == "Ready"
    return reconciler


REFUSED = [
    ("may not hold the pool", "hold", SERVING_POOL, FORBIDDEN, "Unknown"),
    ("is not known any more", "list", RAY_CLUSTER, "Unauthorized", "Unknown"),
    ("may not make the token", "create", SECRET, FORBIDDEN, "False"),
    ("asks too much", "list", NETWORK_POLICY, "TooManyRequests", "False"),
    ("has a webhook that does not answer", "apply", RAY_CLUSTER, "InternalError", "False"),
]


@pytest.mark.parametrize(
    ("verb", "kind", "reason", "ready"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_pool_says_in_the_apis_words_what_an_operator_is_refused_that(
    cluster: Strict, verb: str, kind: ResourceKind, reason: str, ready: str
) -> None:
    add_pool(cluster, WITH_REDIS)
    cluster.refuse(verb, kind, reason)
    reconciler, _ = parts(cluster)
    with pytest.raises(Unavailable, match=reason):  # the queue tries again with back-off
        reconciler.reconcile(KEY)
    assert told(cluster) == ("ApiRefused", f"{kind.plural}: may not {verb}")
    assert conditions(cluster) == {"Ready": (ready, "ApiRefused"), "Progressing": ("False", "ApiRefused")}
    before = pool_of(cluster)
    with pytest.raises(Unavailable):
        reconciler.reconcile(KEY)
    assert pool_of(cluster) == before, "what was told is not written again, which would wake others"
    cluster.refused.clear()
    reconciler.reconcile(KEY)
    assert told(cluster)[0] == "StartingPool"


def test_a_pool_that_is_being_deleted_says_what_keeps_it(cluster: Strict) -> None:
    add_pool(cluster, WITH_REDIS)
    reconciler, _ = parts(cluster)
    reconciler.reconcile(KEY)
    cluster.delete(SERVING_POOL, KEY)
    cluster.refuse("list", RAY_CLUSTER)
    with pytest.raises(Unavailable):
        reconciler.reconcile(KEY)
    assert told(cluster) == ("ApiRefused", "rayclusters: may not list")


def test_deployments_of_a_pool_that_cannot_start_hear_what_is_refused(cluster: Strict) -> None:
    add_pool(cluster)
    deploy(cluster)
    cluster.refuse("apply", RAY_CLUSTER)
    reconciler, directory = parts(cluster)
    with pytest.raises(Unavailable):
        reconciler.reconcile(KEY)
    pool = directory.pool(KEY)
    assert not isinstance(pool, PoolProblem)
    problem = directory.writer(pool)
    assert isinstance(problem, PoolProblem)
    assert (problem.reason, problem.message) == (Reason.STARTING_POOL, "rayclusters: may not apply")


def test_deployments_of_a_pool_whose_raycluster_s_name_is_taken_hear_what_to_do(cluster: Strict) -> None:
    add_pool(cluster)
    deploy(cluster)
    stranger = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "penstock-default", "namespace": KEY.namespace},
    }
    cluster.create(RAY_CLUSTER, stranger)
    reconciler, directory = parts(cluster)
    reconciler.reconcile(KEY)
    assert told(cluster)[0] == Reason.NAME_CONFLICT
    pool = directory.pool(KEY)
    assert not isinstance(pool, PoolProblem)
    problem = directory.writer(pool)
    assert isinstance(problem, PoolProblem)
    assert_tells(problem.message, "RayCluster penstock-default delete")


def test_an_operator_without_a_secret_says_so_as_a_fault_not_as_something_under_way(cluster: Strict) -> None:
    add_pool(cluster)
    unsigned = RayClusters(cluster, IMAGE, "", lambda name, _: Addresses(name, name))
    problem = unsigned.settings()
    assert isinstance(problem, PoolProblem)
    assert facts_of(problem.reason).refuses


def test_what_serves_stays_ready_while_a_change_is_refused(cluster: Strict, ray: RayStandIn) -> None:
    reconciler = serving_pool(cluster, ray)
    cluster.refuse("list", NETWORK_POLICY)
    with pytest.raises(Unavailable):
        reconciler.reconcile(KEY)
    assert conditions(cluster) == {"Ready": ("True", "Ready"), "Progressing": ("False", "ApiRefused")}
    assert pool_of(cluster)["status"]["rayCluster"] == "penstock-default"


def test_what_was_not_looked_at_is_not_said_to_be_ready(cluster: Strict, ray: RayStandIn) -> None:
    reconciler = serving_pool(cluster, ray)
    cluster.refuse("list", RAY_CLUSTER)
    with pytest.raises(Unavailable):
        reconciler.reconcile(KEY)
    assert conditions(cluster)["Ready"] == ("Unknown", "ApiRefused")
    assert pool_of(cluster)["status"]["rayCluster"] == "penstock-default", "all else stays as it was seen last"


def test_where_no_status_is_taken_either_the_first_refusal_is_the_one_that_is_raised(cluster: Strict) -> None:
    add_pool(cluster)
    cluster.refuse("create", SECRET)
    cluster.refuse("tell", SERVING_POOL)
    with pytest.raises(Unavailable, match="secrets: may not create"):
        parts(cluster)[0].reconcile(KEY)


def test_a_pool_of_someone_elses_says_that_its_token_cannot_be_read_now(cluster: Strict) -> None:
    existing = {"address": "http://127.0.0.1:1", "tokenSecretRef": {"name": "t", "key": "token"}}
    add_pool(cluster, {"existing": existing})
    cluster.refuse("get", SECRET, "InternalError")
    with pytest.raises(Unavailable):
        parts(cluster)[0].reconcile(KEY)
    assert told(cluster) == ("ApiRefused", "secrets: may not get")


UNKNOWN = [
    ("of a namespace that is not its own", FORBIDDEN),
    ("where the API does not answer", "ApiUnavailable"),
]


@pytest.mark.parametrize("reason", [row[1] for row in UNKNOWN], ids=[row[0] for row in UNKNOWN])
def test_no_owner_is_taken_for_gone(cluster: Strict, ray: RayStandIn, reason: str) -> None:
    serving_pool(cluster, ray)
    application = serve_app(deployment(NEW_MODEL), ApplicationState.RUNNING, running=1, wanted=1)
    assert application.config is not None
    ray.put({"applications": [dict(application.config)]})
    cluster.refuse("get", INFERENCE_DEPLOYMENT, reason)
    parts(cluster, ray)[0].reconcile(KEY)  # by another, which has not read a moment ago what runs
    assert set(ray.details()["applications"]) == {application.name}
    assert told(cluster)[0] == "Ready"
    cluster.refused.clear()
    parts(cluster, ray)[0].reconcile(KEY)
    assert not ray.details()["applications"], "once the API says so, it is"


REASONS = [(FORBIDDEN, Reason.API_REFUSED), ("", Reason.API_REFUSED), ("PoolUnreachable", Reason.POOL_UNREACHABLE)]


@pytest.mark.parametrize(("said", "reason"), REASONS, ids=["the API's", "none", "one of ours"])
def test_a_condition_has_a_reason_of_ours(said: str, reason: Reason) -> None:
    assert reason_of(Unavailable(said, "")) is reason


def test_a_pool_whose_pods_may_not_be_seen_starts_all_the_same(cluster: Strict) -> None:
    cluster.refuse("list", POD)
    add_pool(cluster)
    reconciler, _ = parts(cluster)
    reconciler.reconcile(KEY)
    reconciler.reconcile(KEY)
    assert told(cluster) == ("StartingPool", Telling("head penstock-default starting"))
    assert cluster.list(RAY_CLUSTER, KEY.namespace).items
