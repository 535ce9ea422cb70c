"""Whether pods fit on nodes, and what is said where they do not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from tests.telling import Telling, assert_tells

from penstock.api.pool import Toleration, TolerationOperator
from penstock_operator.nodes.forecast import (
    KubernetesNode,
    PodDemand,
    Taint,
    describe_closest,
    place_waiting,
    why_no_room,
)

GI = 2.0**30
GPU = "nvidia.com/gpu"
L4 = {"penstock.dev/accelerator-type": "nvidia-l4"}
GPU_TAINT = Taint(GPU)
TOLERATES = (Toleration(key=GPU),)


def node(name: str, *, used: Mapping[str, float] | None = None, **changes: Any) -> KubernetesNode:
    base = {"allocatable": {"cpu": 8.0, "memory": 32 * GI, "pods": 110.0}, "requested": used or {}}
    return KubernetesNode(name, **{**base, **changes})


def gpu_node(name: str, gpus: float = 4.0, *, used: float = 0.0, **changes: Any) -> KubernetesNode:
    offers = {"cpu": 8.0, "memory": 32 * GI, "pods": 110.0, GPU: gpus}
    return node(name, **{"allocatable": offers, "used": {GPU: used}, "labels": L4, "taints": (GPU_TAINT,), **changes})


def worker(**changes: Any) -> PodDemand:
    base: dict[str, Any] = {
        "requests": {"cpu": 4.0, "memory": 16 * GI, GPU: 1.0},
        "node_selector": L4,
        "tolerations": TOLERATES,
    }
    return PodDemand("a worker of group l4", **{**base, **changes})


SMALL = PodDemand("a worker of group cpu", {"cpu": 3.0, "memory": GI})


@pytest.mark.parametrize(
    ("nodes", "demand", "nearest", "facts"),
    [
        pytest.param((), worker(), None, "group l4 no node", id="no node is known"),
        pytest.param(
            (node("cpu-1"), node("cpu-2")),
            worker(),
            "cpu-1",
            f"group l4 4 cpu 16Gi memory 1 {GPU} penstock.dev/accelerator-type=nvidia-l4 none 2 nodes cpu-2",
            id="no node has the accelerator",
        ),
        pytest.param(
            (node("cpu-1"), gpu_node("gpu-1", used=4.0)),
            worker(),
            "gpu-1",
            f"0 {GPU} free 4 cpu-1 lacks penstock.dev/accelerator-type=nvidia-l4",
            id="a full node is closer than one without accelerators",
        ),
        pytest.param(
            (gpu_node("gpu-1"),),
            worker(tolerations=()),
            "gpu-1",
            f"taint {GPU}:NoSchedule",
            id="a taint is named",
        ),
        pytest.param(
            (gpu_node("gpu-1"),),
            worker(requests={"cpu": 64.0}),
            "gpu-1",
            "64 cpu has 8",
            id="a node that could never hold it says what it has in all",
        ),
        pytest.param(
            (
                gpu_node(
                    "gpu-1", unschedulable=True, ready=False,
                    taints=(Taint("node.kubernetes.io/unreachable"), Taint("node.kubernetes.io/unschedulable")),
                ),
            ),
            worker(),
            "gpu-1",
            "cordoned not ready only node",
            id="cordoned and not ready",
        ),
        pytest.param(
            (gpu_node("gpu-1", labels={"penstock.dev/accelerator-type": "nvidia-a100"}),),
            worker(),
            "gpu-1",
            "label penstock.dev/accelerator-type=nvidia-l4 nvidia-a100",
            id="a label of another value is told",
        ),
        pytest.param(
            tuple(gpu_node(f"gpu-{index}", used=4.0) for index in range(8)),
            worker(),
            "gpu-0",
            f"gpu-1 gpu-2 5 more 0 {GPU} free",
            id="nodes that lack the same are told together",
        ),
    ],
)  # fmt: skip
def test_the_closest_nodes_are_named(
    nodes: tuple[KubernetesNode, ...], demand: PodDemand, nearest: str | None, facts: str
) -> None:
    sentence = describe_closest(demand, nodes)
    assert sentence is not None
    assert next(iter(re.findall(r"[cg]pu-\d", sentence)), None) == nearest
    assert_tells(sentence, facts)


def test_no_node_is_close_where_one_lacks_nothing() -> None:
    assert describe_closest(worker(), (gpu_node("gpu-1", used=4.0), gpu_node("gpu-2"))) is None


@pytest.mark.parametrize(
    ("demands", "nodes", "facts"),
    [
        pytest.param([SMALL, SMALL], (node("a"),), None, id="two fit beside each other"),
        pytest.param([SMALL] * 3, (node("a"),), "a 2 cpu 8", id="the third does not"),
        pytest.param([SMALL] * 3, (node("a"), node("b")), None, id="it goes to the next node"),
        pytest.param(
            [SMALL, PodDemand("the head", {"cpu": 8.0})],
            (node("a"), node("b")),
            None,
            id="the large go first, so that the small leave them room",
        ),
        pytest.param([worker(), worker()], (gpu_node("g", used=3.0),), f"g 0 {GPU}", id="accelerators are counted"),
        pytest.param([SMALL], (node("a", used={"pods": 110.0}),), "a 0 pods 110", id="nodes take so many pods"),
        pytest.param([SMALL], (node("a", used={"cpu": 5.0}),), None, id="what is used is off, and the rest is enough"),
        pytest.param([], (), None, id="nothing fits nowhere"),
    ],
)
def test_pods_fit_or_the_first_that_does_not_is_told(
    demands: list[PodDemand], nodes: tuple[KubernetesNode, ...], facts: str | None
) -> None:
    sentence = why_no_room(demands, nodes)
    assert sentence == (None if facts is None else Telling(facts))


LARGE = PodDemand("another's pod", {"cpu": 6.0})
HUGE = PodDemand("a pod for no node of these", {"cpu": 64.0})
WAITING = [
    ("what waits takes its room first", [LARGE], "a 2 cpu 8"),
    ("what no node takes takes no room", [HUGE, HUGE], None),
    ("of what waits the rest takes its room all the same", [HUGE, LARGE], "a 2 cpu 8"),
]


@pytest.mark.parametrize(("waiting", "facts"), [row[1:] for row in WAITING], ids=[row[0] for row in WAITING])
def test_pods_that_wait_for_a_node_count(waiting: list[PodDemand], facts: str | None) -> None:
    sentence = why_no_room([SMALL], place_waiting(waiting, (node("a"),)))
    assert sentence == (None if facts is None else Telling(facts))


@pytest.mark.parametrize(
    ("taint", "toleration", "placed"),
    [
        pytest.param(Taint("k", "v"), Toleration(key="k"), True, id="Exists takes any value"),
        pytest.param(
            Taint("k", "v"), Toleration(key="k", operator=TolerationOperator.EQUAL, value="v"), True, id="Equal the same"
        ),
        pytest.param(
            Taint("k", "v"), Toleration(key="k", operator=TolerationOperator.EQUAL, value="w"), False, id="and no other"
        ),
        pytest.param(Taint("k", "v"), Toleration(), True, id="no key tolerates all"),
        pytest.param(Taint("k", "v"), Toleration(key="other"), False, id="another key does not"),
        pytest.param(Taint("k", "", "NoExecute"), Toleration.model_validate({"key": "k", "effect": "NoSchedule"}), False,
                     id="another effect does not"),
        pytest.param(Taint("k", "", "PreferNoSchedule"), Toleration(key="other"), True, id="a preference keeps nobody away"),
    ],
)  # fmt: skip
def test_taints_are_tolerated_as_kubernetes_does_it(taint: Taint, toleration: Toleration, placed: bool) -> None:  # noqa: FBT001
    demand = PodDemand("a pod", {"cpu": 1.0}, tolerations=(toleration,))
    assert (why_no_room([demand], (node("a", taints=(taint,)),)) is None) is placed
