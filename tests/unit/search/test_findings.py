"""What a search says that it has found so far, after each number of trials."""

from __future__ import annotations

import pytest
from tests.telling import Telling, assert_tells
from tests.unit.search.search_world import World, named, plan, spec

from penstock.optimization.recipes import EngineName
from penstock_optimizer.search.findings import findings
from penstock_optimizer.search.standing import Standing

QUICK = {"steps": {"graphOptimize": {}, "quantize": {"methods": ["Static", "Dynamic"]}}, "engines": ["ONNXRuntime"]}


def told(world: World) -> list[str]:
    """Each sentence once, in order."""
    trials, _ = world.search()
    said = [findings(Standing(world.searched, trials[:count])) for count in range(len(trials) + 1)]
    return list(dict.fromkeys(said))


def world(*, lost: int = 0, lost_in_test: int = 0, speed: float = 3.0, objective: str = "Latency") -> World:
    searched = plan(spec(**QUICK, objective=objective), torch=False)
    static = named(searched, EngineName.ONNX_RUNTIME, "Static").key
    return World(searched, speed={static: speed}, lost={static: lost}, lost_in_test={static: lost_in_test})


def test_it_goes_from_a_first_look_to_a_speed_to_an_accuracy() -> None:
    static = "graphOptimize + quantize Static → ONNXRuntime"
    assert told(world()) == [
        "",
        Telling("accuracy 1 of 1"),
        Telling("accuracy 2 of 2"),
        Telling("accuracy 3 of 3"),
        Telling(static, "3.00 fast ONNXRuntime fp32 not tested"),
        Telling(static, "3.00 fast ONNXRuntime fp32 Accuracy 1.0000 1000"),
    ]


@pytest.mark.parametrize(
    ("searched", "facts"),
    [
        pytest.param(world(speed=1.0), "no candidate 3 gains", id="no gain"),
        pytest.param(world(lost=40), "no candidate 3 gains", id="the fast one is ruined"),
        pytest.param(world(lost_in_test=200), "Accuracy 0.8000", id="ruined in the test"),
        pytest.param(world(objective="Throughput"), "3.00 ONNXRuntime fp32 throughput", id="load"),
    ],
)
def test_what_does_not_hold_is_said(searched: World, facts: str) -> None:
    assert_tells(told(searched)[-1], facts)
