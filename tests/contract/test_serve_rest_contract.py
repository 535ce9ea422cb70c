"""What the operator relies on in Ray's REST API, on a real Ray and on the stand-in of the tests of scale."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contract.ray_rest_standin import RayStandIn
from tests.integration.local_ray import AT_REST, local_ray

from penstock_operator.clients.ray import ApplicationDetails, PoolUnauthorized, RayClient, application
from penstock_operator.deployment.observed import ApplicationState

FAILED, RUNNING = ApplicationState.DEPLOY_FAILED, ApplicationState.RUNNING
PATIENCE = 90.0


@pytest.fixture(scope="module", params=["stand-in", pytest.param("ray", marks=pytest.mark.ray)])
def address(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    if request.param == "stand-in":
        with RayStandIn() as standin:
            yield standin.url, standin.token
    else:
        with local_ray(environment={**AT_REST, "PYTHONPATH": str(Path(__file__).parents[2])}, forked=True) as head:
            yield head.dashboard_url, head.token


@pytest.fixture
def ray(address: tuple[str, str]) -> Iterator[RayClient]:
    client = RayClient(*address)
    yield client
    put(client)
    until(client, lambda apps: not apps)
    client.close()


def app(name: str, **changes: Any) -> dict[str, Any]:
    deployment = {"name": "replica", "user_config": {}, "ray_actor_options": {"num_cpus": 0.1}}
    return {
        "name": name,
        "route_prefix": f"/{name}",
        "import_path": "tests.contract.serve_apps:build",
        "runtime_env": {},
        "args": {},
        "deployments": [deployment],
        **changes,
    }


def put(client: RayClient, *apps: dict[str, Any]) -> None:
    client.declare(
        {"http_options": {"host": "127.0.0.1", "port": 0}, "proxy_location": "Disabled", "applications": list(apps)}
    )


def until(client: RayClient, done: Any) -> dict[str, ApplicationDetails]:
    deadline = time.monotonic() + PATIENCE
    while not done(apps := client.serve().applications):
        assert time.monotonic() < deadline, apps
        time.sleep(0.2)
    return apps


def state(name: str, wanted: ApplicationState) -> Any:
    return lambda apps: name in apps and apps[name].status is wanted


def test_an_application_runs_and_its_configuration_is_echoed(ray: RayClient) -> None:
    wanted = app("one")
    put(ray, wanted)
    found = until(ray, state("one", RUNNING))["one"]
    assert found.deployed_app_config == wanted
    read = application(found)
    assert (read.running, read.wanted, read.arguments) == (1, 1, None)


def test_a_put_replaces_the_whole_list(ray: RayClient) -> None:
    put(ray, app("one"), app("two"))
    until(ray, lambda apps: all(state(name, RUNNING)(apps) for name in ("one", "two")))
    put(ray, app("two"))
    assert set(until(ray, lambda apps: "one" not in apps)) == {"two"}


def test_the_same_put_again_restarts_nothing(ray: RayClient) -> None:
    put(ray, app("one"))
    before = until(ray, state("one", RUNNING))["one"].deployments["replica"].replicas
    put(ray, app("one"))
    time.sleep(1)
    after = until(ray, state("one", RUNNING))["one"].deployments["replica"].replicas
    assert [each.start_time_s for each in after] == [each.start_time_s for each in before]


def test_a_failed_import_is_in_the_applications_message(ray: RayClient) -> None:
    put(ray, app("bad", import_path="no.such.module:app", deployments=[]))
    found = until(ray, state("bad", FAILED))["bad"]
    assert "ModuleNotFoundError" in found.message
    assert found.deployments == {}


def test_a_failed_constructor_is_in_the_deployments_message(ray: RayClient) -> None:
    put(ray, app("bad", args={"fail": "out of luck"}))
    found = until(ray, state("bad", FAILED))["bad"]
    assert "out of luck" not in found.message
    assert "out of luck" in found.deployments["replica"].message


def test_other_arguments_are_tried_again(ray: RayClient) -> None:
    put(ray, app("bad", args={"fail": "out of luck"}))
    until(ray, state("bad", FAILED))
    put(ray, app("bad", args={}))
    until(ray, state("bad", RUNNING))


def test_a_failure_leaves_the_others_running(ray: RayClient) -> None:
    put(ray, app("good"), app("bad", args={"fail": "out of luck"}))
    apps = until(ray, lambda apps: state("bad", FAILED)(apps) and state("good", RUNNING)(apps))
    assert set(apps) == {"good", "bad"}


def test_a_wrong_token_is_refused(address: tuple[str, str]) -> None:
    with pytest.raises(PoolUnauthorized, match="tokenSecretRef"):
        RayClient(address[0], "wrong").serve()
    with pytest.raises(PoolUnauthorized, match="tokenSecretRef"):
        RayClient(address[0], None).serve()


def test_nodes_and_version_are_told(ray: RayClient) -> None:
    assert ray.version() == "2.60.0"
    (node,) = ray.nodes()
    assert node.total["CPU"] >= 1
    assert 0 <= node.available["CPU"] <= node.total["CPU"]
    assert ray.unplaced_actors() == frozenset()


def test_what_is_echoed_is_json(address: tuple[str, str]) -> None:
    headers = {"authorization": f"Bearer {address[1]}"}
    response = httpx.get(address[0] + "/api/serve/applications/", headers=headers, timeout=30)
    assert isinstance(json.loads(response.text)["applications"], dict)
