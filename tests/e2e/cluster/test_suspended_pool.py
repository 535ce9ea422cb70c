"""A pool that is suspended gives everything back, keeps what was asked for, and comes back; deleted, nothing is left of it."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from tests.e2e.cluster.deleting import left, restart_operators
from tests.e2e.cluster.installation import GATEWAY, Installation, Tenant, condition, deployment, pool, tenant, until
from tests.e2e.cluster.model_store import ModelStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


def test_its_pods_go_its_models_stay_and_answer_again_and_all_of_it_is_deleted(
    installation: Installation, store: ModelStore, model_uri: str, body: Path
) -> None:
    namespace, name, port = GATEWAY
    with (
        tenant(installation, store.credentials()) as made,
        installation.cluster.forward(name, namespace, port) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):

        def ask() -> httpx.Response:
            return client.post(made.path("dense"), content=body.read_bytes(), headers=made.headers)

        made.apply(pool(), deployment("dense", model_uri))
        installation.until_ready("infdep", made.namespace, "dense")
        spec = installation.get("infdep", made.namespace, "dense")["spec"]
        assert ask().status_code == 200

        _suspend(made, suspended=True)
        until("no pod of the pool is left", lambda: not installation.list("pod", made.namespace) or None)
        until("the deployment says so", lambda: _reason(made) == "Suspended" or None)
        refused = ask()
        assert refused.status_code == 503
        assert "suspended" in refused.json()["error"].lower()
        assert installation.get("infdep", made.namespace, "dense")["spec"] == spec

        _suspend(made, suspended=False)
        until("it answers again", lambda: ask().status_code == 200 or None)
        installation.until_ready("infdep", made.namespace, "dense")

        installation.cluster.kubectl("delete", "infdep,servingpool", "--all", "-n", made.namespace, "--wait=false")
        restart_operators(installation)
        until("everything is gone", lambda: not left(installation, made.namespace) or None, 180)


def _suspend(made: Tenant, *, suspended: bool) -> None:
    change = json.dumps({"spec": {"suspend": suspended}})
    made.installation.cluster.kubectl(
        "patch", "servingpool", "default", "-n", made.namespace, "--type=merge", "-p", change
    )


def _reason(made: Tenant) -> str | None:
    found = made.installation.get("infdep", made.namespace, "dense")
    reason: str | None = condition(found, "PoolReady").get("reason")
    return reason
