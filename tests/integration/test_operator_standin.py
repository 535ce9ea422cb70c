"""The operator on an embedded store against the stand-in of Ray's REST API: many deployments, failures, restarts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.ray_rest_standin import RayStandIn
from tests.waiting import eventually

from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL, TENANT_QUOTA
from penstock_operator.operation import Operation
from penstock_operator.runtime.cluster import SECRET, Key
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.loop.news import News
from penstock_operator.settings import Settings

FOREIGN = {"name": "theirs", "import_path": "their.app:app", "args": {"k": 1}}


def pool(address: str, secret: str = "ray") -> dict[str, Any]:
    existing = {"address": address, "tokenSecretRef": {"name": secret, "key": "token"}}
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ServingPool",
        "metadata": {"name": "default", "namespace": "default"},
        "spec": {"existing": existing},
    }


def deployment(name: str, model: str = "file:///models/1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": {"storageUri": model, "modelFormat": "onnx"}, **spec},
    }


class Operator:
    """Starts and stops operators on one store."""

    def __init__(self, cluster: EmbeddedCluster) -> None:
        self.cluster = cluster
        self.events: list[tuple[str, str]] = []
        self._running: list[Operation] = []

    def start(self) -> Operation:
        def record(_object: Any, news: News) -> None:
            self.events.append((news.reason, news.message))

        operation = Operation(self.cluster, Settings(workers=8), record, lambda: True)
        operation.start()
        self._running.append(operation)
        return operation

    def stop(self) -> None:
        while self._running:
            assert self._running.pop().stop(60)

    def reason(self, name: str, kind: str = "Ready") -> str:
        manifest = self.cluster.get(INFERENCE_DEPLOYMENT, Key("default", name)) or {}
        conditions = (manifest.get("status") or {}).get("conditions", ())
        return next((each["reason"] for each in conditions if each["type"] == kind), "")


@pytest.fixture
def ray() -> Iterator[RayStandIn]:
    with RayStandIn() as standin:
        standin.put({"applications": [FOREIGN]})
        yield standin


@pytest.fixture
def operator(tmp_path: Path, ray: RayStandIn) -> Iterator[Operator]:
    cluster = EmbeddedCluster(tmp_path / "cluster.sqlite")
    secret = {"metadata": {"name": "ray", "namespace": "default"}, "stringData": {"token": ray.token}}
    cluster.apply(SECRET, secret, "test")
    built = Operator(cluster)
    yield built
    built.stop()
    cluster.close()


def apps(ray: RayStandIn) -> set[str]:
    return set(ray.details()["applications"])


def test_many_deployments_share_few_puts_and_foreign_applications_survive(operator: Operator, ray: RayStandIn) -> None:
    names = [f"model-{n}" for n in range(40)]
    operator.cluster.apply(SERVING_POOL, pool(ray.url), "test")
    for name in names:
        operator.cluster.apply(INFERENCE_DEPLOYMENT, deployment(name), "test")
    operator.start()
    eventually(lambda: all(operator.reason(name) == "Ready" for name in names), "all are ready")
    assert len(apps(ray)) == 41
    assert ray.details()["applications"]["theirs"]["deployed_app_config"] == FOREIGN
    assert ray.requests["PUT"] <= len(names)
    for name in names:
        operator.cluster.delete(INFERENCE_DEPLOYMENT, Key("default", name))
    eventually(lambda: not operator.cluster.list(INFERENCE_DEPLOYMENT).items, "all are gone")
    assert apps(ray) == {"theirs"}


def test_what_is_beyond_the_quota_waits_until_there_is_room(operator: Operator, ray: RayStandIn) -> None:
    quota = {"metadata": {"name": "team", "namespace": "default"}, "spec": {"hard": {"replicas": 3}}}
    operator.cluster.apply(TENANT_QUOTA, quota, "test")
    operator.cluster.apply(SERVING_POOL, pool(ray.url), "test")
    for name in ("one", "three", "two"):  # of one second, so that names decide
        operator.cluster.apply(INFERENCE_DEPLOYMENT, deployment(name, scaling={"maxReplicas": 2}), "test")

    def taken() -> dict[str, Any]:
        manifest = operator.cluster.get(TENANT_QUOTA, Key("default", "team")) or {}
        used: dict[str, Any] = (manifest.get("status") or {}).get("used") or {}
        return used

    operator.start()
    eventually(lambda: operator.reason("one") == "Ready", "the first fits")
    eventually(lambda: operator.reason("three") == operator.reason("two") == "QuotaExceeded", "the others wait")
    eventually(lambda: taken().get("replicas") == 6, "all are counted")
    assert len(apps(ray)) == 2
    eventually(
        lambda: any(reason == "QuotaExceeded" and "three, two" in note for reason, note in operator.events),
        "an event says who waits",
    )
    operator.stop()
    operator.start()
    operator.cluster.delete(INFERENCE_DEPLOYMENT, Key("default", "one"))
    eventually(lambda: operator.reason("three") == "Ready", "the next has room once the first has gone")
    eventually(lambda: taken().get("replicas") == 4, "what went is not counted")
    assert operator.reason("two") == "QuotaExceeded"
    operator.cluster.apply(TENANT_QUOTA, {**quota, "spec": {"hard": {"replicas": 4}}}, "test")
    eventually(lambda: operator.reason("two") == "Ready", "a raised quota lets the last in")
    operator.cluster.apply(TENANT_QUOTA, {**quota, "spec": {"hard": {"replicas": 1}}}, "test")
    eventually(lambda: operator.reason("two") == operator.reason("three") == "QuotaExceeded", "the quota was lowered")
    assert operator.reason("two", "Serving") == "ReplicasReady"
    assert len(apps(ray)) == 3


def test_a_restarted_operator_changes_nothing_that_is_settled(operator: Operator, ray: RayStandIn) -> None:
    operator.cluster.apply(SERVING_POOL, pool(ray.url), "test")
    operator.cluster.apply(INFERENCE_DEPLOYMENT, deployment("one"), "test")
    operator.start()
    eventually(lambda: operator.reason("one") == "Ready", "it is ready")
    operator.stop()
    puts, before = ray.requests["PUT"], operator.cluster.get(INFERENCE_DEPLOYMENT, Key("default", "one"))
    controller = operator.start().controllers[0]
    eventually(lambda: controller.wait_synced(0), "the resources are listed")
    gets = ray.requests["GET"]
    eventually(lambda: ray.requests["GET"] > gets, "the pool was looked at")
    operator.stop()
    assert ray.requests["PUT"] == puts
    assert operator.cluster.get(INFERENCE_DEPLOYMENT, Key("default", "one")) == before


def test_what_was_deleted_while_no_operator_ran_is_taken_down(operator: Operator, ray: RayStandIn) -> None:
    operator.cluster.apply(SERVING_POOL, pool(ray.url), "test")
    operator.cluster.apply(INFERENCE_DEPLOYMENT, deployment("one"), "test")
    operator.start()
    eventually(lambda: operator.reason("one") == "Ready", "it is ready")
    operator.stop()
    operator.cluster.delete(INFERENCE_DEPLOYMENT, Key("default", "one"))
    operator.start()
    eventually(lambda: not operator.cluster.list(INFERENCE_DEPLOYMENT).items, "it is gone")
    assert apps(ray) == {"theirs"}


def test_an_application_whose_deployment_is_gone_is_dropped_by_the_pool(operator: Operator, ray: RayStandIn) -> None:
    operator.cluster.apply(SERVING_POOL, pool(ray.url), "test")
    operator.cluster.apply(INFERENCE_DEPLOYMENT, deployment("one"), "test")
    operator.start()
    eventually(lambda: operator.reason("one") == "Ready", "it is ready")
    operator.stop()
    manifest = operator.cluster.get(INFERENCE_DEPLOYMENT, Key("default", "one"))
    assert manifest is not None
    operator.cluster.remove_finalizer(INFERENCE_DEPLOYMENT, manifest, "penstock.dev/release")
    operator.cluster.delete(INFERENCE_DEPLOYMENT, Key("default", "one"))
    operator.start()
    eventually(lambda: apps(ray) == {"theirs"}, "the orphan is dropped")


def test_a_deployment_without_a_pool_says_so_and_goes_on_once_there_is_one(operator: Operator, ray: RayStandIn) -> None:
    operator.cluster.apply(INFERENCE_DEPLOYMENT, deployment("early"), "test")
    operator.start()
    eventually(lambda: operator.reason("early") == "PoolNotFound", "the missing pool is told")
    eventually(
        lambda: any(reason == "PoolNotFound" and "create one" in note for reason, note in operator.events),
        "an event says what to do",
    )
    operator.cluster.apply(SERVING_POOL, pool(ray.url), "test")
    eventually(lambda: operator.reason("early") == "Ready", "it is ready")


POOLS = [
    ("a Secret that is not there", {"secret": "absent"}, "SecretNotFound"),
    ("an address where nothing listens", {"address": "http://127.0.0.1:9"}, "PoolUnreachable"),
    ("a token that is refused", {"secret": "wrong"}, "PoolUnauthorized"),
]


@pytest.mark.parametrize(("changes", "reason"), [row[1:] for row in POOLS], ids=[row[0] for row in POOLS])
def test_a_pool_that_cannot_be_used_is_told_on_pool_and_deployment_and_heals(
    operator: Operator, ray: RayStandIn, changes: dict[str, str], reason: str
) -> None:
    wrong = {"metadata": {"name": "wrong", "namespace": "default"}, "stringData": {"token": "wrong"}}
    operator.cluster.apply(SECRET, wrong, "test")
    operator.cluster.apply(SERVING_POOL, pool(**{"address": ray.url, **changes}), "test")
    operator.cluster.apply(INFERENCE_DEPLOYMENT, deployment("one"), "test")
    operator.start()
    eventually(lambda: operator.reason("one") == reason, "told on the deployment")

    def of_pool() -> str:
        manifest = operator.cluster.get(SERVING_POOL, Key("default", "default")) or {}
        return next((each["reason"] for each in (manifest.get("status") or {}).get("conditions", ())), "")

    eventually(lambda: of_pool() == reason, "told on the pool")
    operator.cluster.apply(SERVING_POOL, pool(ray.url), "test")
    eventually(lambda: operator.reason("one") == "Ready", "healed")


def test_a_deletion_does_not_wait_for_a_pool_that_is_gone(operator: Operator, ray: RayStandIn) -> None:
    operator.cluster.apply(SERVING_POOL, pool(ray.url), "test")
    operator.cluster.apply(INFERENCE_DEPLOYMENT, deployment("one"), "test")
    operator.start()
    eventually(lambda: operator.reason("one") == "Ready", "it is ready")
    operator.cluster.delete(SERVING_POOL, Key("default", "default"))
    operator.cluster.delete(INFERENCE_DEPLOYMENT, Key("default", "one"))
    eventually(lambda: not operator.cluster.list(INFERENCE_DEPLOYMENT).items, "it is gone")


def test_a_model_changed_back_and_forth_converges_on_the_last(operator: Operator, ray: RayStandIn) -> None:
    operator.cluster.apply(SERVING_POOL, pool(ray.url), "test")
    operator.start()
    pause = threading.Event()
    for number in (1, 2, 1, 3, 2, 1, 2):
        operator.cluster.apply(INFERENCE_DEPLOYMENT, deployment("one", f"file:///models/{number}"), "test")
        pause.wait(0.15)

    def settled() -> bool:
        mine = [
            each["deployed_app_config"]["args"]["replica"]["storageUri"]
            for name, each in ray.details()["applications"].items()
            if name != "theirs"
        ]
        return mine == ["file:///models/2"] and operator.reason("one") == "Ready"

    eventually(settled, "only the last model is there, and ready")


def test_scaled_to_none_takes_the_application_down_and_back_up(operator: Operator, ray: RayStandIn) -> None:
    operator.cluster.apply(SERVING_POOL, pool(ray.url), "test")
    operator.cluster.apply(INFERENCE_DEPLOYMENT, deployment("one"), "test")
    operator.start()
    eventually(lambda: operator.reason("one") == "Ready", "it is ready")
    operator.cluster.apply(INFERENCE_DEPLOYMENT, deployment("one", scaling={"replicas": 0}), "test")
    eventually(lambda: operator.reason("one", "Serving") == "ScaledToZero", "scaled to none")
    eventually(lambda: apps(ray) == {"theirs"}, "the application is gone")
    operator.cluster.apply(INFERENCE_DEPLOYMENT, deployment("one"), "test")
    eventually(lambda: operator.reason("one", "Serving") == "ReplicasReady", "and back")
