"""Objects of another form than any release wrote, at each field: their own status says so, and their neighbours go on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.telling import assert_tells
from tests.unit.operator.test_newer_objects import MODEL, Operator, add

from penstock.errors import Conflict, Invalid, PenstockError
from penstock.names import FINALIZER
from penstock_operator import sources
from penstock_operator.kinds import (
    API_KEY,
    INFERENCE_DEPLOYMENT,
    OPTIMIZATION_PROFILE,
    OPTIMIZATION_RUN,
    SERVING_POOL,
    TENANT_QUOTA,
)
from penstock_operator.optimization.directory import users_of
from penstock_operator.runtime.cluster import EventType, Key, Manifest, ResourceKind
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.cluster.storage import Stored
from penstock_operator.runtime.copies.change import Change
from penstock_operator.runtime.loop.controller import Watch, keys_concerned

OWNER = {"apiVersion": "penstock.dev/v1alpha1", "kind": "InferenceDeployment", "name": "one", "uid": "u"}
PROFILE = {"kind": "OptimizationProfile", "name": "own"}
GOOD: dict[ResourceKind, Manifest] = {
    INFERENCE_DEPLOYMENT: {
        "model": MODEL, "poolRef": {"name": "good"}, "scaling": {"replicas": 1}, "resources": {"cpu": "1", "memory": "1Gi"},
        "optimizationProfileRef": PROFILE,
    },
    SERVING_POOL: {"managed": {"workerGroups": [{"name": "cpu", "cpu": "1", "memory": "1Gi"}]}},
    OPTIMIZATION_RUN: {"model": MODEL, "profileRef": PROFILE},
    API_KEY: {"sha256": "a" * 64, "deployments": ["good"], "expiresAt": "2130-01-01T00:00:00Z"},
    TENANT_QUOTA: {"hard": {"replicas": 3, "memory": "1Gi"}},
}  # fmt: skip
NEIGHBOURS = (INFERENCE_DEPLOYMENT, SERVING_POOL, TENANT_QUOTA, API_KEY)
VALUES: tuple[Any, ...] = (5, "x", [5], {"a": 5}, -1, None)
STATUSES: tuple[Any, ...] = (
    5,
    {"conditions": 5},
    {"conditions": [5]},
    {"conditions": [{}]},
    {"conditions": [{"type": 5}]},
)


def _paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*path, key))


def _with(spec: Manifest, path: tuple[str, ...], value: Any) -> Manifest:
    changed = copy.deepcopy(spec)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return changed


def _malformed(kind: ResourceKind) -> Iterator[Manifest]:
    spec = GOOD[kind]
    for value in VALUES[:-1]:
        yield {"spec": value}
    for path in _paths(spec):
        for value in VALUES:
            yield {"spec": _with(spec, path, value)}
    for status in STATUSES:
        yield {"spec": spec, "status": status}


class World:
    """A namespace with a good object of each kind, and a malformed one beside them."""

    def __init__(self, folder: Path) -> None:
        self.cluster = EmbeddedCluster(folder / "cluster.sqlite")
        self.operator = Operator(self.cluster, folder / "store")
        add(self.cluster, OPTIMIZATION_PROFILE, {}, "own")
        for kind in NEIGHBOURS:
            add(self.cluster, kind, GOOD[kind], "good")

    def put(self, kind: ResourceKind, content: Manifest) -> None:
        """As if it had been written by what knows no rules."""
        self.cluster.delete(kind, Key("default", "malformed"))
        add(self.cluster, kind, GOOD[kind], "malformed")
        written = self.cluster.get(kind, Key("default", "malformed"))
        storage = self.cluster._storage
        with storage.write_transaction():
            stored = Stored(f"{kind.plural}.{kind.group}", {**(written or {}), **content}, {})
            storage.save(EventType.MODIFIED, stored)

    def reconcile(self, kind: ResourceKind, name: str) -> PenstockError | None:
        try:
            self.operator.reconcile[kind](Key("default", name))
        except PenstockError as error:
            return error
        return None

    def told(self, kind: ResourceKind) -> str:
        found = self.cluster.get(kind, Key("default", "malformed"))
        return str((found or {}).get("status"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.cluster.close()


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: str(kind.kind))
def test_a_malformed_object_is_told_of_and_keeps_no_neighbour_waiting(world: World, kind: ResourceKind) -> None:
    for content in _malformed(kind):
        world.put(kind, content)
        error = world.reconcile(kind, "malformed")
        assert error is None or isinstance(error, Invalid | Conflict), (content, error)
        assert not isinstance(error, Invalid) or "InvalidSpec" in world.told(kind), content
        for neighbour in NEIGHBOURS:
            assert world.reconcile(neighbour, "good") is None, (content, neighbour.kind)
        users_of(
            {"kind": "OptimizationProfile", "metadata": {"name": "own", "namespace": "default"}},
            world.cluster.list(INFERENCE_DEPLOYMENT, "default").items,
            "optimizationProfileRef",
        )


@pytest.mark.parametrize(
    "watch",
    [
        Watch(SERVING_POOL, sources.deployments_of_pool, sources.readiness_aspect),
        Watch(OPTIMIZATION_RUN, sources.deployment_of_run, sources.verdict_aspect),
    ],
    ids=lambda watch: str(watch.kind.kind),
)
def test_whom_a_malformed_object_concerns_is_not_told_and_the_rest_of_its_kind_is_followed(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    good: Manifest = {"metadata": {"name": "a", "namespace": "default", "ownerReferences": [OWNER]}}
    malformed: Manifest = {**good, "status": {"conditions": [5]}}

    def seen(*_: Any) -> tuple[Manifest, ...]:
        return ({"metadata": {"name": "one", "namespace": "default"}, "spec": {"poolRef": {"name": "a"}}},)

    assert list(keys_concerned(watch, Change(malformed, good), seen)) == []
    assert_tells(caplog.text, f"{watch.kind.kind} a: concerns")
    assert set(keys_concerned(watch, Change(good, malformed), seen)) == {Key("default", "one")}, "it was mended"


def test_one_that_is_malformed_can_be_deleted(world: World) -> None:
    add(world.cluster, INFERENCE_DEPLOYMENT, {"model": MODEL}, "malformed", finalizers=[FINALIZER])
    written = world.cluster.get(INFERENCE_DEPLOYMENT, Key("default", "malformed")) or {}
    storage = world.cluster._storage
    with storage.write_transaction():
        broken = {**written, "spec": 5, "status": {"conditions": [5]}}
        storage.save(EventType.MODIFIED, Stored("inferencedeployments.penstock.dev", broken, {}))
    world.cluster.delete(INFERENCE_DEPLOYMENT, Key("default", "malformed"))
    assert world.reconcile(INFERENCE_DEPLOYMENT, "malformed") is None
    assert world.cluster.get(INFERENCE_DEPLOYMENT, Key("default", "malformed")) is None
