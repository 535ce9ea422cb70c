"""What a search says that it has found so far, after each number of trials."""

from __future__ import annotations

import pytest
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
        "candidates that keep the accuracy at a first look: 1 of 1; none is timed yet",
        "candidates that keep the accuracy at a first look: 2 of 2; none is timed yet",
        "candidates that keep the accuracy at a first look: 3 of 3; none is timed yet",
        f"{static} is 3.00 times as fast as ONNXRuntime fp32; its accuracy is not tested in full yet",
        f"{static} is 3.00 times as fast as ONNXRuntime fp32; Accuracy 1.0000 on 1000 test samples, 1.0000 before",
    ]


@pytest.mark.parametrize(
    ("searched", "last"),
    [
        pytest.param(world(speed=1.0), "no candidate of 3 gains as much as the profile asks for", id="no gain"),
        pytest.param(
            world(lost=40), "no candidate of 3 gains as much as the profile asks for", id="the fast one is ruined"
        ),
        pytest.param(world(lost_in_test=200), "its accuracy does not hold: Accuracy 0.8000", id="ruined in the test"),
        pytest.param(world(objective="Throughput"), "3.00 times as good as ONNXRuntime fp32 in throughput", id="load"),
    ],
)
def test_what_does_not_hold_is_said(searched: World, last: str) -> None:
    assert last in told(searched)[-1]
