"""What happens to a platform that serves: each returns once everything is whole again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from images.catalogue import ImageName
from tests.chart.helm import NAMESPACE
from tests.e2e.cluster.installation import GATEWAY, Installation, Object, Tenant, condition, deployment, pool, until
from tests.e2e.cluster.steady_load import SteadyLoad, steady_load

_GATEWAY = "app.kubernetes.io/component=gateway"
_OPERATOR = "app.kubernetes.io/component=operator"
_HEAD = "ray.io/node-type=head"
_WORKER = "ray.io/node-type=worker"
_WHOLE_SECONDS = 240.0
_AROUND_SECONDS = 3.0


@dataclass(frozen=True)
class Served:
    """A model with two replicas, on two workers, of a tenant."""

    tenant: Tenant
    model: str
    body: Path
    next_images: Mapping[ImageName, str] = field(default_factory=dict)
    """Those of a later release, where there is one."""

    @property
    def installation(self) -> Installation:
        """What serves it."""
        return self.tenant.installation

    @property
    def namespace(self) -> str:
        """Of the tenant."""
        return self.tenant.namespace

    def pods(self, selector: str, namespace: str | None = None) -> list[Object]:
        """Pods with a label that are not on their way out."""
        found = self.installation.list("pod", namespace or self.namespace, selector)
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]

    def until_whole(self) -> None:
        """Wait until pool, replicas, operators and gateways are all there."""
        try:
            until("everything is whole again", lambda: self._whole() or None, _WHOLE_SECONDS)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.installation.explain(self.namespace)}") from None

    def _whole(self) -> bool:
        # One process of kubectl a look: they take of the CPU that what is looked at needs.
        there = json.loads(self.installation.cluster.kubectl("get", "infdep,pod", "-A", "-o", "json"))["items"]
        (found,) = (each for each in there if _is(each, "InferenceDeployment", self.namespace, self.model))
        ready = condition(found, "Ready").get("status") == "True"
        replicas = found.get("status", {}).get("replicas", {}).get("ready") == 2
        pods = (
            (self.namespace, _HEAD, 1), (self.namespace, _WORKER, 2), (NAMESPACE, _GATEWAY, 2), (NAMESPACE, _OPERATOR, 2),
        )  # fmt: skip
        return ready and replicas and all(_are_ready(there, *which) for which in pods)


Fault = Callable[[Served], None]


def two_workers(**managed: object) -> Object:
    """A pool with two workers, each of which holds one replica of `serve_twice`.

    Ray counts whole CPUs of a worker, so that a replica must take more than half of one: with two on one worker, the loss
    of that worker would be the loss of the model.
    """
    group = {"name": "cpu", "cpu": "520m", "memory": "1Gi", "minWorkers": 2, "maxWorkers": 3}
    return pool(workerGroups=[group], **managed)


def serve_twice(served: Served, uri: str, pool_object: Object) -> Served:
    """Apply a pool and a model with two replicas, and wait until both serve."""
    scaling = {"minReplicas": 2, "maxReplicas": 2}
    served.tenant.apply(pool_object, deployment(served.model, uri, scaling=scaling, resources={"cpu": "520m"}))
    served.until_whole()
    return served


def under_load(served: Served, fault: Fault) -> SteadyLoad:
    """A fault, with a hundred requests a second from shortly before until shortly after."""
    tenant = served.tenant
    path = tenant.path(served.model)
    with steady_load(tenant.installation.cluster, GATEWAY, path, served.body, headers=tenant.headers) as load:
        time.sleep(_AROUND_SECONDS)
        began = time.monotonic()
        fault(served)
        load.whole_after_seconds = time.monotonic() - began
        time.sleep(_AROUND_SECONDS)
    return load


def release_upgraded(served: Served) -> None:
    """Helm replaces operators and gateways, one after the other; the new release's runtime makes a second Ray cluster,
    which takes over from the first."""
    before = _ray_cluster(served)
    served.installation.upgrade_images(served.next_images)
    _until_replaced_by_another(served, before)


def release_rolled_back(served: Served) -> None:
    """The same, back to the release before."""
    before = _ray_cluster(served)
    served.installation.roll_back()
    _until_replaced_by_another(served, before)


def gateway_killed(served: Served) -> None:
    """One of two gateways crashes."""
    (victim, *_) = served.pods(_GATEWAY, NAMESPACE)
    served.installation.cluster.kill(NAMESPACE, victim["metadata"]["name"], "gateway")
    _until_replaced(served, _GATEWAY, NAMESPACE, victim)
    served.until_whole()


def worker_killed(served: Served) -> None:
    """One of the two Ray workers crashes, and the replica on it."""
    (victim, *_) = served.pods(_WORKER)
    served.installation.cluster.kill(served.namespace, victim["metadata"]["name"], _ray_container(victim))
    _until_replaced(served, _WORKER, served.namespace, victim)
    served.until_whole()


def head_killed(served: Served) -> None:
    """Ray's head crashes: its control process, its dashboard and Serve's controller."""
    (victim,) = served.pods(_HEAD)
    served.installation.cluster.kill(served.namespace, victim["metadata"]["name"], _ray_container(victim))
    _until_replaced(served, _HEAD, served.namespace, victim)
    served.until_whole()


def node_drained(served: Served) -> None:
    """A node with a worker, and without the head, is drained, stays so until all is whole elsewhere, and comes back."""
    (head,) = served.pods(_HEAD)
    _drain(served, min({each["spec"]["nodeName"] for each in served.pods(_WORKER)} - {head["spec"]["nodeName"]}))


def heads_node_drained(served: Served) -> None:
    """The same with the head's node, whatever else runs there."""
    (head,) = served.pods(_HEAD)
    _drain(served, head["spec"]["nodeName"])


def _drain(served: Served, node: str) -> None:
    kubectl = served.installation.cluster.kubectl
    try:
        kubectl(
            "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=180s",
            f"--pod-selector=!{_KEPT}",
        )  # fmt: skip
        served.until_whole()
    finally:
        kubectl("uncordon", node)


_KEPT = "e2e.penstock.dev/kept"
"""A label of what stands for services outside the cluster, such as the model store: no drain moves it."""

FAULTS: dict[str, Fault] = {
    "gateway killed": gateway_killed,
    "worker killed": worker_killed,
    "node drained": node_drained,
    "release upgraded by Helm, and the pool with it": release_upgraded,
    "release rolled back by Helm, and the pool with it": release_rolled_back,
}
FAULTS_WITH_REDIS: dict[str, Fault] = {
    "head killed, its state kept in Redis": head_killed,
    "node of the head drained, its state kept in Redis": heads_node_drained,
}


def _ray_cluster(served: Served) -> str:
    """The pool's, that serves."""
    name: str = served.installation.get("servingpool", served.namespace, "default")["status"]["rayCluster"]
    return name


def _until_replaced_by_another(served: Served, before: str) -> None:
    """Wait until the pool has another Ray cluster, and nothing is left of the one before."""
    pools = served.installation

    def replaced() -> bool:
        found = [each["metadata"]["name"] for each in pools.list("raycluster", served.namespace)]
        return before not in found and found == [_ray_cluster(served)]

    try:
        until("a second Ray cluster has taken over", lambda: replaced() or None, _WHOLE_SECONDS)
    except TimeoutError as error:
        raise AssertionError(f"{error}\n{pools.explain(served.namespace)}") from None
    assert pools.get("servingpool", served.namespace, "default")["status"]["change"] == "Replacement"
    served.until_whole()


def _ray_container(pod: Object) -> str:
    """KubeRay runs Ray in a pod's first container."""
    name: str = pod["spec"]["containers"][0]["name"]
    return name


def _until_replaced(served: Served, selector: str, namespace: str, victim: Object) -> None:
    """Wait until a crash shows: another pod in its place, or a container started again."""
    before = victim["metadata"]["uid"], _restarts(victim)
    until(
        f"{victim['metadata']['name']} is seen to have ended",
        lambda: before not in {(each["metadata"]["uid"], _restarts(each)) for each in served.pods(selector, namespace)},
        _WHOLE_SECONDS,
    )


def _restarts(pod: Object) -> int:
    return sum(each["restartCount"] for each in pod["status"].get("containerStatuses", ()))


def _is(each: Object, kind: str, namespace: str, name: str) -> bool:
    metadata = each["metadata"]
    return (each["kind"], metadata["namespace"], metadata["name"]) == (kind, namespace, name)


def _are_ready(objects: list[Object], namespace: str, selector: str, count: int) -> bool:
    """Whether there are so many pods with a label, and all that are not on their way out are ready."""
    label, _, value = selector.partition("=")
    pods = [
        each
        for each in objects
        if (each["kind"], each["metadata"]["namespace"]) == ("Pod", namespace)
        and each["metadata"].get("labels", {}).get(label) == value
        and "deletionTimestamp" not in each["metadata"]
    ]
    return len(pods) >= count and all(condition(pod, "Ready").get("status") == "True" for pod in pods)
