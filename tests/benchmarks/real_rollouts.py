"""Judged rollouts on real parts: API server, Ray, gateway, operator, replicas, and clients who ask all the while.

Good candidates many times, and each kind of bad one; with two operators that are killed in turn, or with replicas killed, where asked.
It fails where more good ones were rolled back than alpha allows, or one of their requests failed; where a bad one took over; and
where more requests were harmed than were the candidate's by its share.
"""

from __future__ import annotations

import argparse
import json
import math
import queue
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from tests.benchmarks import report
from tests.benchmarks.rollout_disturbances import Disturbance, GatewayExchanger, OperatorKiller, ReplicaKiller
from tests.benchmarks.rollout_figures import exact_interval
from tests.benchmarks.rollout_lane import ANALYSIS, Lane, RolloutStory, StatusLook
from tests.benchmarks.rollout_models import ModelTraits
from tests.benchmarks.stack import running_platform
from tests.e2e.stack import Platform

from penstock.api.rollout import RolloutPhase

ALPHA: Final = float(ANALYSIS["alpha"])
_GOOD, _BAD = str(RolloutPhase.PROMOTED), str(RolloutPhase.ROLLED_BACK)
_WORK: Final = 900
"""Some 3 ms: where the model's own time is what counts."""


@dataclass(frozen=True)
class Kind:
    """A kind of candidate, beside what its margins and load must be so that it can be told on two cores within minutes."""

    traits: ModelTraits
    end: str = _BAD
    work: int = 0
    """Of the revision that serves."""
    per_second: float = 40.0
    analysis: dict[str, Any] = field(default_factory=dict)
    rollout: dict[str, Any] = field(default_factory=dict)
    seconds: float = 300.0
    slow: bool = False
    """No client can tell which of its answers were the candidate's: all of these count as harmed."""
    alone: bool = False
    """Whether it has a deployment of its own: what takes over so is no measure for others."""


_AS_GOOD: Final = "as good"
KINDS: Final = {
    _AS_GOOD: Kind(ModelTraits(), end=_GOOD),
    "wrong answers": Kind(ModelTraits(wrong_above=0.0)),
    "wrong answers, not compared": Kind(
        ModelTraits(wrong_above=0.0), end=_GOOD, alone=True, analysis={"outputParity": "0"}
    ),
    "wrong for a class of 10 %": Kind(ModelTraits(wrong_above=0.95), analysis={"outputParity": "0.98"}),
    "answers of another shape": Kind(ModelTraits(split=True)),
    "a fifth slower": Kind(
        ModelTraits(work=_WORK * 6 // 5), work=_WORK, per_second=60, slow=True, seconds=900,
        analysis={"maxSlowIncrease": "0.05"}, rollout={"deadlineSeconds": 850},
    ),
    "as good, where a fifth matters": Kind(
        ModelTraits(work=_WORK), end=_GOOD, work=_WORK, per_second=60, slow=True, seconds=900,
        analysis={"maxSlowIncrease": "0.2"}, rollout={"deadlineSeconds": 850},
    ),
    "ten times as slow for a tenth": Kind(
        ModelTraits(work=100, slow_above=0.95, slow_work=900), work=100, slow=True, seconds=600,
        analysis={"maxSlowIncrease": "0.02"}, rollout={"deadlineSeconds": 550},
    ),
    "leaks memory": Kind(
        ModelTraits(leak_floats=32_768), slow=True, seconds=600,
        analysis={"maxMemoryIncrease": "0.3"}, rollout={"deadlineSeconds": 550},
    ),
    "crashes in its 100th run": Kind(ModelTraits(crash_at=100)),
    "5xx for 1 %": Kind(
        ModelTraits(failing=0.01), per_second=100, seconds=900,
        analysis={"maxErrorIncrease": "0.005"}, rollout={"deadlineSeconds": 850},
    ),
    "5xx for 10 %": Kind(ModelTraits(failing=0.1), analysis={"maxErrorIncrease": "0.05"}),
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One rollout that is done."""

    kind: str
    lane: str
    story: RolloutStory

    @property
    def expected(self) -> bool:
        """Whether it ended as it should."""
        return self.story.end == KINDS[self.kind].end

    def problems(self) -> list[str]:
        """What should not have been."""
        kind, story = KINDS[self.kind], self.story
        found = []
        if story.count("failed") and kind.end == _GOOD:
            found.append(f"{story.count('failed')} requests failed")
        if story.went_back():
            found.append(story.went_back())
        allowed = story.allowed()
        if kind.end == _BAD and story.harmed > allowed + 4 * math.sqrt(allowed) + 1:
            found.append(f"{story.harmed} requests were harmed, where {allowed:.0f} were the candidate's by its share")
        if not self.expected and kind.end == _BAD:
            found.append(f"ended {story.end}: {story.record.get('message')}")
        return found

    def document(self) -> dict[str, Any]:
        """For `rollouts.jsonl`."""
        story = self.story
        return {
            "kind": self.kind,
            "lane": self.lane,
            "end": story.end,
            "expected": self.expected,
            "problems": self.problems(),
            "seconds": round(story.ended - story.began, 1),
            "phases": story.seconds_in(),
            "reason": story.record.get("reason", ""),
            "message": story.record.get("message", ""),
            "condition": {key: story.condition.get(key) for key in ("status", "reason", "message")},
            "requests": len(story.answers),
            "failed": story.count("failed"),
            "wrong": story.count("wrong", "shape"),
            "allowed": round(story.allowed(), 1),
            "candidates": story.candidates_requests(),
            "harmed after its end, s": round(story.seconds_harmed_after(), 2),
            "baseline": story.record.get("baseline", ""),
            "metrics": [
                {key: each.get(key) for key in ("name", "candidate", "baseline", "harm", "proof")}
                for each in story.record.get("metrics", ())
            ],
            "disturbed": story.disturbed,
            "details": sorted({each.detail for each in story.answers if each.problem == "failed"})[:3],
        }


def main(options: Sequence[str] = ()) -> int:
    """Run the rollouts that are asked for; 1 where a promise was broken."""
    given = parser().parse_args(list(options))
    kinds = [each for each in KINDS if each != _AS_GOOD] if given.kinds == "all" else given.kinds.split(",")
    todo = [_AS_GOOD] * given.alike + [each for each in kinds if each for _ in range(given.each)]
    with running_platform(cpus=64, gateways=2 if given.exchange_gateways else 1) as platform:
        disturbances: list[Disturbance] = []
        if given.kill_operators:
            disturbances.append(OperatorKiller(platform, given.kill_operators))
        if given.exchange_gateways:
            disturbances.append(GatewayExchanger(platform))
        if given.kill_replicas:
            disturbances.append(ReplicaKiller(platform, given.kill_replicas))
        trials: list[Trial] = []
        try:
            _run(platform, todo, given.at_once, disturbances, trials)
        finally:  # told to end, it says what it has seen
            name = f"real-rollouts{'-' + given.label if given.label else ''}"
            status = _publish(name, trials, [each.told() for each in disturbances])
    return status


def parser() -> argparse.ArgumentParser:
    """What the benchmark can be asked."""
    found = argparse.ArgumentParser(prog="real-rollouts", description=__doc__)
    found.add_argument("--alike", type=int, default=4, help="rollouts of candidates that are as good")
    found.add_argument("--kinds", default="all", help=f"of bad candidates, by commas: {', '.join(KINDS)}")
    found.add_argument("--each", type=int, default=1, help="rollouts of each kind")
    found.add_argument("--at-once", type=int, default=3, help="deployments that roll out at the same time")
    found.add_argument(
        "--kill-operators", type=float, default=0, help="seconds after which the operator that leads is killed"
    )
    found.add_argument(
        "--kill-replicas", default="", help="of which arm one is killed in each rollout: candidate or stable"
    )
    found.add_argument("--exchange-gateways", action="store_true", help="one of two in each rollout")
    found.add_argument("--label", default="", help="of what is written")
    return found


def _run(
    platform: Platform, kinds: list[str], at_once: int, disturbances: list[Disturbance], trials: list[Trial]
) -> None:
    """All of them, several deployments at once, and each deployment's one after another."""
    work: queue.SimpleQueue[tuple[str, list[str]]] = queue.SimpleQueue()
    for number, batch in enumerate(_batches(kinds, at_once)):
        work.put((f"r{number}", batch))
    lock = threading.Lock()

    def work_through() -> None:
        while not work.empty():
            with suppress(queue.Empty):
                name, batch = work.get_nowait()
                for trial in _judge_all(platform, name, batch, disturbances):
                    with lock:
                        trials.append(trial)
                        _tell(trial, len(trials), len(kinds))

    threads = [threading.Thread(target=work_through, daemon=True) for _ in range(at_once)]
    for each in (*disturbances, *threads):
        each.start()
    for thread in threads:
        thread.join()
    for disturbance in disturbances:
        disturbance.stop()


def _batches(kinds: list[str], at_once: int) -> list[list[str]]:
    """What each deployment is to judge. Kinds that need another load or model have deployments of their own."""
    own = [kind for kind in kinds if _load_of(kind) != _load_of(_AS_GOOD)]
    shared = [kind for kind in kinds if _load_of(kind) == _load_of(_AS_GOOD)]
    # Bad ones among good ones, so that each deployment sees both.
    random.Random(0).shuffle(shared)
    lanes = max(1, min(at_once, len(shared)))
    return [each for each in (shared[number::lanes] for number in range(lanes)) if each] + [[kind] for kind in own]


def _load_of(kind: str) -> tuple[float, ...]:
    return KINDS[kind].work, KINDS[kind].per_second, KINDS[kind].alone


def _judge_all(platform: Platform, name: str, kinds: list[str], disturbances: list[Disturbance]) -> Iterator[Trial]:
    first = KINDS[kinds[0]]
    lane = Lane(platform, name, work=first.work, per_second=first.per_second)
    try:
        with lane.begin():
            for each in kinds:
                kind = KINDS[each]
                lane.analysis, lane.rollout = kind.analysis, kind.rollout
                yield Trial(each, name, lane.judge(kind.traits, kind.seconds, _together(lane, disturbances)))
        lane.end()
    except Exception as error:  # noqa: BLE001 -- the other deployments' figures are worth having
        report.progress(f"{name}: given up: {error!r}")


def _together(lane: Lane, disturbances: list[Disturbance]) -> Callable[[StatusLook], str]:
    watching = [each.watch(lane) for each in disturbances]
    return lambda look: "; ".join(filter(None, [watch(look) for watch in watching]))


def _tell(trial: Trial, done: int, of: int) -> None:
    document = trial.document()
    report.OUT.mkdir(parents=True, exist_ok=True)
    with (report.OUT / "real-rollouts.jsonl").open("a") as file:
        file.write(json.dumps({"when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **document}) + "\n")
    report.progress(
        f"{done}/{of} {trial.lane} {trial.kind}: {trial.story.end} in {document['seconds']} s {document['phases']}, "
        f"{document['failed']} failed and {document['wrong']} wrong of {document['requests']}: {document['message'][:200]}"
    )
    for problem in (*trial.problems(), *document["disturbed"], *document["details"]):
        report.progress(f"    {problem}")


def _publish(name: str, trials: list[Trial], notes: list[str]) -> int:
    by_kind: dict[str, list[Trial]] = {}
    for trial in trials:
        by_kind.setdefault(trial.kind, []).append(trial)
    if not by_kind:
        print("broken: no rollout ended")
        return 1
    report.publish(
        name, "judged rollouts on real parts", [_row(kind, by_kind[kind]) for kind in KINDS if kind in by_kind], notes
    )
    broken = [f"{each.kind} at {each.lane}: {problem}" for each in trials for problem in each.problems()]
    good = [each for each in trials if KINDS[each.kind].end == _GOOD]
    reverted = sum(each.story.end == _BAD for each in good)
    if good:
        low, high = exact_interval(reverted, len(good))
        print(f"false reverts: {reverted} of {len(good)}, 95 % interval {low:.2%} to {high:.2%}; alpha is {ALPHA:.0%}")
        if low > ALPHA:
            broken.append("more good candidates were rolled back than alpha allows")
    for problem in broken:
        print(f"broken: {problem}")
    return 1 if broken else 0


def _row(name: str, trials: list[Trial]) -> dict[str, Any]:
    kind, stories = KINDS[name], [each.story for each in trials]
    requests = sum(len(each.answers) for each in stories)
    harmed = sum(each.candidates_requests() if kind.slow and kind.end == _BAD else each.harmed for each in stories)
    return {
        "candidate": name,
        "rollouts": len(trials),
        "promoted": sum(each.end == _GOOD for each in stories),
        "rolled back": sum(each.end == _BAD for each in stories),
        "neither": sum(each.end not in (_GOOD, _BAD) for each in stories),
        "s to the verdict": statistics.median(each.ended - each.began for each in stories),
        "requests": requests,
        "failed": sum(each.count("failed") for each in stories),
        "harmed %": 100 * harmed / max(1, requests),
        "its share %": 100 * sum(each.allowed() for each in stories) / max(1, requests),
        "s harmed after": max(each.seconds_harmed_after() for each in stories),
        "reason": stories[-1].record.get("reason", ""),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
