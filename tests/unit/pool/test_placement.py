"""What a replica asks of Ray, and what is said while it has no node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.telling import Telling, assert_tells, telling
from tests.unit.deployment.world import AT_REST, NEW, NOW, SERVE, deployment, gateway, serve_app

from penstock.api.conditions import DeploymentCondition, Reason
from penstock.api.meta import ConditionStatus, LocalReference
from penstock.api.optimization import OptimizationProfileSpec
from penstock.api.pool import GroupAccelerator, GroupStatus, WorkerGroup
from penstock.api.v1alpha1 import Resources
from penstock.api.verdicts import timestamp
from penstock.errors import Invalid
from penstock.names import revision, run_name
from penstock.serving.arguments import Attempt
from penstock_operator.deployment.observed import (
    ApplicationState,
    Node,
    Observed,
    ObservedApplication,
    Pool,
    PoolProblem,
)
from penstock_operator.deployment.plan import invalid_status, plan
from penstock_operator.deployment.unschedulable import find_obstacle, why_unschedulable
from penstock_operator.pool.placement import actor_options, ray_resource

GI = 2.0**30
ARM = {"kubernetes.io/arch": "arm64"}


def group(name: str, accelerator: dict[str, Any] | None = None, **fields: Any) -> WorkerGroup:
    base: dict[str, Any] = {"name": name, "cpu": "4", "memory": "16Gi", "maxWorkers": 2}
    return WorkerGroup.model_validate({**base, "accelerator": accelerator, **fields})


CPU = group("cpu")
GRAVITON = group("graviton", nodeSelector=ARM)
L4 = group("l4", {"type": "nvidia-l4"})
MIG = group("mig", {"type": "nvidia-a100-mig-1g.5gb", "resource": "nvidia.com/mig-1g.5gb"})
TPU = group("tpu", {"type": "google-tpu-v5e", "resource": "google.com/tpu", "count": 4})
GROUPS = (CPU, GRAVITON, L4, MIG, TPU)


def resources(accelerator: str | None = None, count: str = "1", **fields: Any) -> Resources:
    asked = {"type": accelerator, "count": count} if accelerator else None
    return Resources.model_validate({"cpu": "1", "accelerator": asked, **fields})


@pytest.mark.parametrize(
    ("resource", "name"),
    [
        pytest.param("nvidia.com/gpu", "GPU", id="a GPU"),
        pytest.param("amd.com/gpu", "GPU", id="another maker's GPU"),
        pytest.param("nvidia.com/mig-1g.5gb", "GPU", id="a slice of a GPU"),
        pytest.param("nvidia.com/mig-1g.10gb.me", "GPU", id="a slice with media engines"),
        pytest.param("nvidia.com/gpu.shared", "GPU", id="a time-sliced share"),
        pytest.param("google.com/tpu", "thing", id="a TPU"),
        pytest.param("xilinx.com/fpga-u250", "thing", id="an FPGA"),
    ],
)
def test_ray_counts_by_a_name(resource: str, name: str) -> None:
    assert ray_resource(GroupAccelerator(type="thing", resource=resource, count=2)) == (name, 2.0)


@pytest.mark.parametrize(
    ("asked", "groups", "options"),
    [
        pytest.param(resources(), GROUPS, {"num_cpus": 1.0}, id="nothing but a core"),
        pytest.param(
            resources("nvidia-l4", "0.5", memory="1Gi"),
            GROUPS,
            {"num_cpus": 1.0, "memory": GI, "num_gpus": 0.5, "label_selector": {"ray.io/accelerator-type": "nvidia-l4"}},
            id="half a GPU",
        ),
        pytest.param(
            resources("nvidia-a100-mig-1g.5gb"),
            GROUPS,
            {"num_cpus": 1.0, "num_gpus": 1.0, "label_selector": {"ray.io/accelerator-type": "nvidia-a100-mig-1g.5gb"}},
            id="a slice of a GPU is a GPU to Ray",
        ),
        pytest.param(
            resources("google-tpu-v5e", "4"),
            GROUPS,
            {
                "num_cpus": 1.0,
                "resources": {"google-tpu-v5e": 4.0},
                "label_selector": {"ray.io/accelerator-type": "google-tpu-v5e"},
            },
            id="a TPU is a resource of its own",
        ),
        pytest.param(
            resources("google-tpu-v5e", "4"),
            (),
            {"num_cpus": 1.0, "num_gpus": 4.0, "label_selector": {"ray.io/accelerator-type": "google-tpu-v5e"}},
            id="in a pool whose groups are not known an accelerator is a GPU",
        ),
        pytest.param(resources(nodeLabels=ARM), GROUPS, {"num_cpus": 1.0, "label_selector": ARM}, id="a kind of processor"),
    ],
)  # fmt: skip
def test_a_replica_asks_ray_for(asked: Resources, groups: tuple[WorkerGroup, ...], options: dict[str, Any]) -> None:
    assert actor_options(asked, groups) == options


def test_a_share_of_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(Invalid, match=telling("google-tpu-v5e google.com/tpu GPU")):
        actor_options(resources("google-tpu-v5e", "0.5"), GROUPS)


def test_only_labels_that_are_set_change_revision_and_run() -> None:
    plain, arm = deployment(), deployment(resources={"nodeLabels": ARM})
    assert revision(plain) == NEW
    assert revision(arm) != revision(plain)
    assert revision(arm) != revision(deployment(resources={"nodeLabels": {"kubernetes.io/arch": "amd64"}}))


def test_credentials_need_new_replicas_where_they_are_named() -> None:
    plain = deployment()
    model = plain.spec.model.model_copy(update={"credentials_secret_ref": LocalReference(name="s3")})
    named = plain.model_copy(update={"spec": plain.spec.model_copy(update={"model": model})})
    assert revision(named) != revision(plain)


def node(of: str, **available: float) -> Node:
    total = {"CPU": 4.0, "memory": 15 * GI, "GPU": 1.0}
    return Node(
        "10.0.0.2", total, {**total, **available}, {"ray.io/node-group": of, "ray.io/accelerator-type": "nvidia-l4"}
    )


OTHERS_PROBLEM = GroupStatus(
    name="l4-large", message="A worker of group l4-large needs 1 nvidia.com/gpu; none of the 3 nodes offers that."
)
PROBLEM = GroupStatus(
    name="l4",
    message="A worker of group l4 needs 1 nvidia.com/gpu; none of the 3 nodes offers that. Closest: n1: has no nvidia.com/gpu.",
)


@pytest.mark.parametrize(
    ("asked", "groups", "facts"),
    [
        pytest.param(resources(), (), None, id="nothing is known of the groups of an existing pool"),
        pytest.param(resources("nvidia-l4"), GROUPS, None, id="a group has it"),
        pytest.param(
            resources("nvidia-h100"),
            (CPU, L4),
            "1 GPU nvidia-h100 group cpu no accelerator l4 1 nvidia-l4 add worker group",
            id="no group has the type",
        ),
        pytest.param(
            resources("nvidia-l4", "2"), GROUPS, "2 GPU worker large group l4 4 CPU 1",
            id="a worker has fewer accelerators",
        ),
        pytest.param(
            resources("nvidia-l4", memory="16Gi"), GROUPS, "16Gi worker large 15872Mi memory",
            id="Ray itself takes some of a worker's memory",
        ),
        pytest.param(
            resources(nodeLabels={"kubernetes.io/arch": "riscv64"}), (CPU, GRAVITON),
            "kubernetes.io/arch=riscv64 group graviton kubernetes.io/arch=arm64",
            id="no group selects by the label",
        ),
        pytest.param(resources(nodeLabels=ARM), GROUPS, None, id="a group selects by the label"),
    ],
)  # fmt: skip
def test_what_no_worker_could_hold_is_said(
    asked: Resources, groups: tuple[WorkerGroup, ...], facts: str | None
) -> None:
    text = why_unschedulable(asked, groups)
    assert text == (None if facts is None else Telling(facts))


SMALL = Node("10.0.0.1", {"CPU": 4.0, "memory": 2.0**33}, {"CPU": 1.0, "memory": 2.0**32})
LABELLED = Node("10.0.0.2", {"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 0.0}, {"ray.io/accelerator-type": "L4"})


def existing(*nodes: Node) -> Pool:
    return Pool(SERVE, nodes=nodes)


def managed(*nodes: Node, workers: tuple[GroupStatus, ...] = ()) -> Pool:
    return Pool(SERVE, nodes=nodes, groups=(CPU, L4), workers=workers)


@pytest.mark.parametrize(
    ("asked", "pool", "starting", "facts"),
    [
        pytest.param(resources(), existing(), False, "1 CPU no node Start", id="existing: no node"),
        pytest.param(
            resources(cpu="64"), existing(SMALL), False, "64 CPU no node large 4 less spec.resources",
            id="existing: too large for any",
        ),
        pytest.param(
            resources(cpu="2"), existing(SMALL), False, "full 10.0.0.1 1 CPU less spec.resources scale down",
            id="existing: full now",
        ),
        pytest.param(
            resources(memory="16Gi"), existing(SMALL), False, "16Gi memory 8Gi", id="existing: too much memory"
        ),
        pytest.param(
            resources("A100"), existing(LABELLED), False, "A100 L4 Ask add", id="existing: no such accelerator"
        ),
        pytest.param(
            resources("L4"), existing(LABELLED), False, "full 0 GPU", id="existing: the accelerator is taken"
        ),
        pytest.param(
            resources(nodeLabels=ARM), existing(SMALL), False, "no kubernetes.io/arch", id="existing: no such label"
        ),
        pytest.param(resources("nvidia-l4"), managed(), True, "waiting group l4 0 of 2",
                     id="a worker is to start"),
        pytest.param(resources("nvidia-l4"), managed(node("l4", GPU=0.0)), True, "group l4 1 of 2",
                     id="a second worker is to start where the first is full"),
        pytest.param(
            resources("nvidia-l4"), managed(node("l4", GPU=0.0), node("l4", GPU=0.5)), False,
            "full 2 group l4 0.5 GPU maxWorkers",
            id="as many workers as may be, and all full",
        ),
        pytest.param(resources("nvidia-l4"), managed(workers=(OTHERS_PROBLEM, PROBLEM)), False, "group l4 1 nvidia.com/gpu n1",
                     id="its workers find no node"),
        pytest.param(resources("nvidia-l4"), managed(workers=(OTHERS_PROBLEM,)), True, "waiting group l4",
                     id="another group's trouble is none of it"),
        pytest.param(resources(), managed(workers=(PROBLEM,)), True, "waiting group cpu",
                     id="where another group would do, that one's worker is waited for"),
        pytest.param(resources("nvidia-h100"), managed(), False, "nvidia-h100 no worker group", id="no group has the type"),
    ],
)  # fmt: skip
def test_why_a_replica_has_no_node(asked: Resources, pool: Pool, starting: bool, facts: str) -> None:  # noqa: FBT001
    found = find_obstacle(asked, pool)
    assert found is not None
    assert found.starting is starting, found.message
    assert_tells(found.message, facts)


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(existing(SMALL), id="on an existing node"),
        pytest.param(managed(node("l4")), id="on a worker that is up"),
    ],
)
def test_a_replica_with_room_is_only_starting(pool: Pool) -> None:
    asked = resources("nvidia-l4") if pool.groups else resources()
    assert find_obstacle(asked, pool) is None


def waiting(seconds: float | None, accelerator: str) -> tuple[ObservedApplication, Observed]:
    of = deployment(resources={"accelerator": {"type": accelerator}})
    since = None if seconds is None else NOW - seconds
    app = serve_app(of, ApplicationState.DEPLOYING, running=0, waiting_since=since)
    return app, Observed(of, Pool(SERVE, (app,), groups=(CPU, L4)), (gateway({revision(of): 100}, stats=AT_REST),))


@pytest.mark.parametrize(
    ("seconds", "accelerator", "status", "reason", "facts"),
    [
        pytest.param(None, "nvidia-h100", ConditionStatus.FALSE, Reason.UNSCHEDULABLE, "nvidia-h100 no worker group",
                     id="what no group has is said at once"),
        pytest.param(5.0, "nvidia-l4", ConditionStatus.TRUE, Reason.STARTING_REPLICAS, "0 of 1",
                     id="at first a replica is simply starting"),
        pytest.param(60.0, "nvidia-l4", ConditionStatus.TRUE, Reason.STARTING_REPLICAS, "waiting group l4",
                     id="then it waits for a worker, which is nothing wrong"),
    ],
)  # fmt: skip
def test_a_deployment_says_what_it_waits_for(
    seconds: float | None, accelerator: str, status: ConditionStatus, reason: Reason, facts: str
) -> None:
    _, observed = waiting(seconds, accelerator)
    made = plan(observed, NOW).status
    assert made is not None
    progressing = next(each for each in made.conditions if each.type == DeploymentCondition.PROGRESSING)
    assert (progressing.status, progressing.reason) == (status, reason)
    assert_tells(progressing.message, facts)


@pytest.mark.parametrize(
    ("seconds", "workers", "reason", "facts"),
    [
        pytest.param(5.0, (), Reason.STARTING_REPLICAS, "building", id="at first it is simply being built"),
        pytest.param(60.0, (), Reason.STARTING_REPLICAS, "waiting group l4", id="then a worker is waited for"),
        pytest.param(60.0, (PROBLEM,), Reason.UNSCHEDULABLE, "group l4 n1", id="which finds no node"),
    ],
)  # fmt: skip
def test_serve_builds_on_the_nodes_that_serve_and_that_wait_is_told_too(
    seconds: float, workers: tuple[GroupStatus, ...], reason: Reason, facts: str
) -> None:
    of = deployment(resources={"accelerator": {"type": "nvidia-l4"}})
    attempt = Attempt(attempted_at=int(NOW - seconds))
    app = replace(serve_app(of, ApplicationState.DEPLOYING, running=0, wanted=0, attempt=attempt), building=True)
    made = plan(Observed(of, Pool(SERVE, (app,), groups=(CPU, L4), workers=workers), (gateway(None),)), NOW).status
    assert made is not None
    progressing = next(each for each in made.conditions if each.type == DeploymentCondition.PROGRESSING)
    assert progressing.reason == reason
    assert_tells(progressing.message, facts)


@pytest.mark.parametrize(
    ("accelerator", "reason"),
    [
        pytest.param("nvidia-h100", Reason.UNSCHEDULABLE, id="what no group has"),
        pytest.param("nvidia-l4", Reason.STARTING_POOL, id="what one has waits for the pool"),
    ],
)
def test_what_no_group_has_is_said_while_the_pool_starts(accelerator: str, reason: Reason) -> None:
    of = deployment(resources={"accelerator": {"type": accelerator}})
    starting = PoolProblem(Reason.STARTING_POOL, "The head is starting.", groups=(CPU, L4))
    made = plan(Observed(of, starting, (gateway(None),)), NOW).status
    assert made is not None
    found = {each.type: each.reason for each in made.conditions}
    assert found[DeploymentCondition.PROGRESSING] == reason
    assert found[DeploymentCondition.POOL_READY] == Reason.STARTING_POOL


SHARED_TPU = {"accelerator": {"type": "google-tpu-v5e", "count": "0.5"}}


@pytest.mark.parametrize(
    ("problem", "serving"),
    [
        pytest.param(Reason.STARTING_POOL, Reason.STARTING_POOL, id="while the pool starts"),
        pytest.param(Reason.SUSPENDED, Reason.SUSPENDED, id="while the pool is suspended"),
    ],
)
def test_a_share_of_what_cannot_be_shared_is_told_without_the_pool(problem: Reason, serving: Reason) -> None:
    pool = PoolProblem(problem, "No head runs.", groups=GROUPS)
    made = plan(Observed(deployment(resources=SHARED_TPU), pool, (gateway(None),)), NOW).status
    assert made is not None
    found = {each.type: each for each in made.conditions}
    assert found[DeploymentCondition.PROGRESSING].reason == Reason.INVALID_SPEC
    assert_tells(found[DeploymentCondition.PROGRESSING].message, "google-tpu-v5e 0.5 write whole")
    assert found[DeploymentCondition.SERVING].reason == serving
    assert found[DeploymentCondition.POOL_READY].reason == problem


@pytest.mark.parametrize(
    ("empty", "release"),
    [
        pytest.param(False, False, id="what may run there is waited for"),
        pytest.param(True, True, id="where nothing runs it goes at once"),
    ],
)
def test_a_share_of_what_cannot_be_shared_can_be_deleted_without_the_pool(
    *,
    empty: bool,
    release: bool,
) -> None:
    of = deployment(resources=SHARED_TPU, deleted_at=timestamp(NOW - 5))
    pool = PoolProblem(Reason.STARTING_POOL, "The head is starting.", empty=empty, groups=GROUPS)
    result = plan(Observed(of, pool, (gateway(None),)), NOW)
    assert (result.delete_route, result.release) == (True, release)
    assert (result.requeue is None) is empty


def test_what_the_pool_refuses_while_it_starts_does_not_say_that_the_pool_answers() -> None:
    starting = PoolProblem(Reason.STARTING_POOL, "The head is starting.", groups=GROUPS)
    status = invalid_status(Observed(deployment(), starting, (gateway(None),)), "No.", NOW)
    found = {each.type: (each.status, each.reason) for each in status.conditions}
    assert found[DeploymentCondition.POOL_READY] == (ConditionStatus.FALSE, Reason.STARTING_POOL)
    assert found[DeploymentCondition.PROGRESSING] == (ConditionStatus.FALSE, Reason.INVALID_SPEC)


def test_requests_to_what_can_never_start_are_told_so() -> None:
    _, observed = waiting(None, "nvidia-h100")
    route = plan(observed, NOW).route
    assert route is not None
    assert "Unschedulable" in (route.unavailable or "")


def test_the_run_of_a_deployment_depends_on_its_labels_where_it_has_any() -> None:

    profile = OptimizationProfileSpec()
    assert run_name(deployment(), profile) != run_name(deployment(resources={"nodeLabels": ARM}), profile)
