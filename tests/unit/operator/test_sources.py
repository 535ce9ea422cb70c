"""Who looks again when an object comes, changes or goes, and when nobody does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from penstock_operator.kinds import (
    API_KEY,
    INFERENCE_DEPLOYMENT,
    OPTIMIZATION_PROFILE,
    OPTIMIZATION_RUN,
    SERVING_POOL,
    TENANT_QUOTA,
)
from penstock_operator.operation import (
    Declared,
    Parts,
    declare_deployments,
    declare_pools,
    declare_quotas,
    declare_runs,
)
from penstock_operator.runtime.cluster import Manifest, ResourceKind
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.copies.change import Change
from penstock_operator.runtime.copies.mirrored import MirroredCluster
from penstock_operator.runtime.loop.controller import keys_concerned
from penstock_operator.settings import Settings

OWNER = {"apiVersion": "penstock.dev/v1alpha1", "kind": "InferenceDeployment", "name": "one", "uid": "u"}
METADATA = {"name": "one", "namespace": "vision", "uid": "1", "generation": 1, "resourceVersion": "7"}
PROFILE = {"kind": "OptimizationProfile", "name": "one"}
WAITS = {"conditions": [{"reason": "QuotaExceeded"}]}


def one(kind: ResourceKind, *, status: Manifest | None = None, **metadata: Any) -> Manifest:
    """An object that names all others, which are named like it."""
    spec = {"poolRef": {"name": "one"}, "optimizationProfileRef": PROFILE, "profileRef": PROFILE}
    about = {**METADATA, "ownerReferences": [OWNER], **metadata}
    return {"kind": kind.kind, "metadata": about, "spec": spec, "status": status or {}}


def seen(kind: ResourceKind, namespace: str | None) -> list[Manifest]:
    waiting, other = one(kind, status=WAITS), one(kind, name="other")
    other["spec"] = {}
    return [waiting, other] if namespace == "vision" else []


@dataclass(frozen=True)
class Row:
    """A change of one kind, and which objects of another look again."""

    of: Callable[[Parts], Declared]
    kind: ResourceKind
    change: Change
    looks: set[str]


def deployments(parts: Parts) -> Declared:
    return declare_deployments(parts, lambda *_: None, lambda _: None)


def differs(kind: ResourceKind, *, status: Manifest | None = None, **metadata: Any) -> Change:
    return Change(one(kind, status=status, **metadata), one(kind))


def comes(kind: ResourceKind) -> Change:
    return Change(one(kind), None)


def goes(kind: ResourceKind) -> Change:
    return Change(None, one(kind))


COUNTS = {"groups": [], "deployments": 3}
READY = {"conditions": [{"status": "True", "reason": "Ready"}]}
ELSEWHERE = {**one(INFERENCE_DEPLOYMENT), "spec": {"poolRef": {"name": "other"}}}
ROWS = [
    ("a pool comes: its deployments", Row(deployments, SERVING_POOL, comes(SERVING_POOL), {"one"})),
    ("a pool goes: its deployments", Row(deployments, SERVING_POOL, goes(SERVING_POOL), {"one"})),
    ("a pool gets ready", Row(deployments, SERVING_POOL, differs(SERVING_POOL, status=READY), {"one"})),
    ("a pool counts otherwise: nobody", Row(deployments, SERVING_POOL, differs(SERVING_POOL, status=COUNTS), set())),
    ("a run gets on: nobody", Row(deployments, OPTIMIZATION_RUN, differs(OPTIMIZATION_RUN, resourceVersion="8"), set())),
    ("a run's verdict: its deployment",
     Row(deployments, OPTIMIZATION_RUN, differs(OPTIMIZATION_RUN, status={"verdict": "Accepted"}), {"one"})),
    ("a quota's spec: all", Row(deployments, TENANT_QUOTA, differs(TENANT_QUOTA, generation=2), {"one", "other"})),
    ("what is taken of a quota: those that wait",
     Row(deployments, TENANT_QUOTA, differs(TENANT_QUOTA, status={"used": {"replicas": 1}}), {"one"})),
    ("a key goes: all of its namespace", Row(deployments, API_KEY, goes(API_KEY), {"one", "other"})),
    ("a key's status: nobody", Row(deployments, API_KEY, differs(API_KEY, status=READY), set())),
    ("a profile changes: who names it",
     Row(deployments, OPTIMIZATION_PROFILE, differs(OPTIMIZATION_PROFILE, generation=2), {"one"})),
    ("a profile changes: its runs", Row(declare_runs, OPTIMIZATION_PROFILE, differs(OPTIMIZATION_PROFILE), {"one"})),
    ("a deployment goes: its pool", Row(declare_pools, INFERENCE_DEPLOYMENT, goes(INFERENCE_DEPLOYMENT), {"one"})),
    ("a deployment's spec, but not its pool",
     Row(declare_pools, INFERENCE_DEPLOYMENT, differs(INFERENCE_DEPLOYMENT, generation=2), set())),
    ("a deployment moves: both pools",
     Row(declare_pools, INFERENCE_DEPLOYMENT, Change(ELSEWHERE, one(INFERENCE_DEPLOYMENT)), {"one", "other"})),
    ("a deployment's size: the quotas beside it",
     Row(declare_quotas, INFERENCE_DEPLOYMENT, differs(INFERENCE_DEPLOYMENT, generation=2), {"one", "other"})),
    ("a deployment's status: no quota",
     Row(declare_quotas, INFERENCE_DEPLOYMENT, differs(INFERENCE_DEPLOYMENT, status=READY), set())),
]  # fmt: skip


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    cluster = EmbeddedCluster(tmp_path_factory.mktemp("store") / "cluster.sqlite")
    return Parts(MirroredCluster(cluster), Settings(standalone=None), lambda: True)


@pytest.mark.parametrize("row", [row[1] for row in ROWS], ids=[row[0] for row in ROWS])
def test_who_looks_again(row: Row, parts: Parts) -> None:
    watches = [watch for watch in row.of(parts).watches if watch.kind == row.kind]
    assert {key.name for watch in watches for key in keys_concerned(watch, row.change, seen)} == row.looks


def test_a_listing_that_tells_what_is_known_makes_nobody_look_again(parts: Parts) -> None:
    for watch in deployments(parts).watches:
        if watch.aspect is not None:
            same = one(watch.kind)
            assert not list(keys_concerned(watch, Change(same, same), seen))
            assert not list(keys_concerned(watch, Change(one(watch.kind), one(watch.kind)), seen))
