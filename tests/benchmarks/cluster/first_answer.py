"""How long it takes from `helm install`, and from `kubectl apply`, to a model's first answer, and where the time goes."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import Any

import httpx
from tests.benchmarks.report import progress, publish
from tests.e2e.cluster.installation import GATEWAY, Installation, Object, Tenant, condition, deployment, pool, tenant
from tests.e2e.cluster.model_store import ModelStore

_SECONDS = 300.0


def main(installation: Installation, store: ModelStore, uri: str, body: Path) -> None:
    """Measure, and write `cluster-first-answer`."""
    rows = [_install(installation, store, uri, body)]
    with tenant(installation, store.credentials()) as made:
        progress("applying a model in a namespace without a Ray cluster")
        made.apply(pool())
        rows.append(_apply(made, "cold", uri, body, "apply, cold pool"))
        for number in range(3):
            progress(f"applying a model where the pool is warm, {number + 1} of 3")
            rows.append(_apply(made, f"warm-{number}", uri, body, f"apply, warm pool ({number + 1})"))
    publish(
        "cluster-first-answer",
        "From helm install and kubectl apply to a model's first answer, in seconds",
        rows,
        [
            "All images are on the nodes. Nodes, control plane and load share this machine.",
            "Phases: differences of the times in conditions, which have a resolution of a second. Whole: by this clock.",
        ],
    )


def _install(installation: Installation, store: ModelStore, uri: str, body: Path) -> dict[str, Any]:
    """Install where nothing is, and serve at once, in the pool that a namespace gets by default."""
    installation.uninstall()
    progress("installing the chart")
    began = time.time()
    installation.upgrade()
    installed = time.time() - began
    with tenant(installation, store.credentials()) as made:
        row = _apply(made, "first", uri, body, "helm install, then apply, default pool")
        whole = time.time() - began
    return row | {"helm install": installed, "whole": whole}


def _apply(made: Tenant, name: str, uri: str, body: Path, what: str) -> dict[str, Any]:
    """Apply a model and ask until it answers."""
    namespace, service, port = GATEWAY
    cluster = made.installation.cluster
    with cluster.forward(service, namespace, port) as url, httpx.Client(base_url=url, timeout=_SECONDS) as client:
        began = time.time()
        # So small that one worker holds them all: a warm pool has room.
        made.apply(deployment(name, uri, resources={"cpu": "50m", "memory": "128Mi"}))
        deadline = began + _SECONDS
        while client.post(made.path(name), content=body.read_bytes(), headers=made.headers).status_code != 200:
            if time.time() > deadline:
                raise AssertionError(made.installation.explain(made.namespace))
            time.sleep(0.05)
        whole = time.time() - began
    made.installation.until_ready("infdep", made.namespace, name)
    return _row(made, name, what, began, whole)


def _row(made: Tenant, name: str, what: str, began: float, whole: float) -> dict[str, Any]:
    find = made.installation.list
    pods = find("pod", made.namespace, "ray.io/is-ray-node=yes")
    heads = [_ready_at(each) for each in pods if each["metadata"]["labels"]["ray.io/node-type"] == "head"]
    workers = [_ready_at(each) for each in pods if each["metadata"]["labels"]["ray.io/node-type"] == "worker"]
    found = made.installation.get("infdep", made.namespace, name)
    usable, serving = (_time(condition(found, kind)["lastTransitionTime"]) for kind in ("PoolReady", "Serving"))
    marks = [began, max(began, *heads), max(began, usable), max(began, *workers[:1])]
    return {
        "case": what,
        "helm install": 0.0,
        "head ready": max(0.0, marks[1] - began),
        "pool usable": max(0.0, marks[2] - max(marks[:2])),
        "worker ready": max(0.0, marks[3] - max(marks[:3])),
        "replica serves": max(0.0, serving - max(marks)),
        "whole": whole,
    }


def _ready_at(pod: Object) -> float:
    return _time(condition(pod, "Ready")["lastTransitionTime"])


def _time(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()
