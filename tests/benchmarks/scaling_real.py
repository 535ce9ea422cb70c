"""The simulator of `penstock replay` held against a real run, and its error; what a start takes, from one replica and from none.

A real API server, Ray Serve, gateway and operator, replicas of a small model whose runs last a fixed time asleep (`pausing`). The
arrivals that were sent are simulated with the same policy, and replicas, violations and waits compared. The simulator is told how
long a start takes and by what replicas multiply their estimates, both from the step before, and nothing of the run that it is held against.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from tests.benchmarks import parts, report
from tests.benchmarks.open_loop import Outcome, infer_at
from tests.benchmarks.stack import running_platform
from tests.e2e.stack import Platform, deployment

from penstock.names import SERVE_DEPLOYMENT
from penstock.telemetry import names
from penstock_cli.replay.loads import draw_arrivals
from penstock_cli.replay.model import ReplayCase, ServiceTimes
from penstock_cli.replay.policies import POLICIES
from penstock_cli.replay.simulation import ReplayResult, simulate
from penstock_cli.standalone.collector import Collector
from penstock_cli.traces.reading import load_spans

FIRST_SECONDS, ROW_SECONDS, BATCH = 0.10, 0.025, 4
"""Of a run: 0.125 s alone, 0.2 s for four, so that a replica answers 20 requests a second."""
SLO_SECONDS: Final = 1.0
MOST: Final = 4
WINDOW: Final = 20.0
LOAD: Final = ((60, 8.0), (50, 34.0), (40, 60.0), (50, 20.0), (60, 6.0))
"""(seconds, requests a second) of the recorded load."""
BOUNDS: Final = {"replicas": 0.5, "replica-seconds": 0.15, "violations": 0.05, "p95": 0.35}
"""Of the error: mean difference of the running replicas; share of replica-seconds; share of all requests; share of the p95."""
_CONTROL: Final = 2.0
"""The control's replicas answer so many times as much as the real ones: the comparison must find it out."""
_STEP_TURNS: Final = 8
"""Of 20 s, until all replicas are there."""
_NAME: Final = "real"
_PHASES: Final = (
    names.SPAN_SPAWN, names.SPAN_PULL, names.SPAN_LOAD, names.SPAN_WARM_UP, names.SPAN_REGISTER,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    """Of one moment: replicas that Serve is to run, and that get requests."""

    at: float
    wanted: int
    running: int


class Watch:
    """Looks several times a second; times are on the monotonic clock."""

    def __init__(self, penstock: Platform) -> None:
        self.looks: list[Look] = []
        self._penstock = penstock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        self.began_ns = time.time_ns()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(0.25):
            wanted = _wanted(self._penstock)
            running = len(self._penstock.gateway.receiving("default", _NAME))
            self.looks.append(Look(time.monotonic() - self.began, wanted, running))

    def first(self, *, wanted: int = 0, running: int = 0) -> float | None:
        """Seconds until at least so many were wanted and running."""
        return next((each.at for each in self.looks if each.wanted >= wanted and each.running >= running), None)

    def by_second(self, seconds: int) -> tuple[list[int], list[int]]:
        """Wanted and running at the begin of each second, as of the last look before."""
        wanted, running = [], []
        for second in range(seconds):
            last = next((each for each in reversed(self.looks) if each.at <= second), self.looks[0])
            wanted.append(last.wanted)
            running.append(last.running)
        return wanted, running


def _wanted(penstock: Platform) -> int:
    found = [each for name, each in penstock.serve_applications().items() if f"-default-{_NAME}-" in f"-{name}-"]
    return sum(
        int(each["deployments"][SERVE_DEPLOYMENT]["target_num_replicas"]) for each in found if each["deployments"]
    )


def main() -> int:
    """Measure, and publish `scaling-real`; 1 where the simulator is further off than it may be, or its control is not."""
    with tempfile.TemporaryDirectory() as folder:
        traces = Path(folder) / "traces.jsonl"
        collector = Collector(traces)
        environment = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.endpoint}/v1/traces",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "PYTHONPATH": os.pathsep.join((str(Path(__file__).parent / "pausing"), str(Path.cwd()))),
            "BENCH_RUN_SECONDS": f"{FIRST_SECONDS},{ROW_SECONDS}",
        }
        with running_platform(environment=environment) as penstock:
            url = _deploy(penstock, 0)
            zero = _from_zero(penstock, url, traces)
            step, start_seconds = _step(penstock, url, traces)
            times = _estimate_times(url)
            # Made anew, so that the policy remembers nothing, as the simulated one does.
            penstock.kubectl("delete", "infdep", _NAME, "--timeout=120s")
            row, errors, off = _validate(penstock, _deploy(penstock, 1), start_seconds, times)
        collector.stop()
    holds = all(errors[name] <= bound for name, bound in BOUNDS.items())
    found_out = any(off[name] > bound for name, bound in BOUNDS.items())
    lost = zero["failed"] > 0
    report.publish(
        "scaling-real",
        "The simulator against a real run; and what starts take",
        row,
        [
            f"error of the simulator: {_say(errors)} ({'within' if holds else 'BEYOND'} its bounds: {_say(BOUNDS)})",
            f"control, whose replicas answer {_CONTROL:g} times as much ({'found out' if found_out else 'NOT FOUND OUT'}): {_say(off)}",
            f"from zero, {zero['requests']} at once, {zero['failed']} failed: {zero['phases']}",
            f"step: {step}",
            f"the simulator was told of the step before: a start takes {start_seconds:.1f} s, estimates are taken {times:.2f} times",
        ],
    )
    return int(not holds or not found_out or lost)


def _deploy(penstock: Platform, least: int) -> str:
    model = parts.dense_model(penstock.folder / _NAME / "model.onnx", (64, 10))
    batching = {"maxBatchSize": BATCH, "maxDelayMilliseconds": 0}
    slo = {"latencyP99Milliseconds": round(SLO_SECONDS * 1000)}
    made = deployment("default", _NAME, model, scaling=_scaling(least), batching=batching, slo=slo)
    penstock.kubectl("apply", "-f", "-", manifest=made)
    url: str = penstock.until_ready("default", _NAME)["status"]["url"]
    return url


def _scaling(least: int) -> dict[str, int]:
    return {
        "minReplicas": least, "maxReplicas": MOST, "stabilizationWindowSeconds": round(WINDOW), "scaleToZeroAfterSeconds": 2,
    }  # fmt: skip


def _from_zero(penstock: Platform, url: str, traces: Path) -> dict[str, Any]:
    """A hundred requests at once at no replica."""
    parts.until("no replica", lambda: not penstock.gateway.receiving("default", _NAME) and not _wanted(penstock), 240)
    with Watch(penstock) as watch:
        outcome = infer_at(url, parts.request_body(), [0.0] * 100)
    report.progress(f"from zero: {outcome.statuses()}")
    first = min(each.sent + each.seconds for each in outcome.answers if each.status == 200)
    phases = {"decided": watch.first(wanted=1) or 0.0, **_phases(traces, watch)}
    phases["to the first answer"] = max(0.0, first - sum(phases.values()))
    # What a replica cannot answer in time it refuses: that is an answer, too, and nothing is lost by it.
    failed = sum(each.status not in (200, 429) for each in outcome.answers)
    refused = sum(each.status == 429 for each in outcome.answers)
    text = f"{_dominating(phases)}; first answer after {first:.2f} s; {refused} refused as they could not be answered in time"
    return {"requests": len(outcome.answers), "failed": failed, "phases": text}


def _step(penstock: Platform, url: str, traces: Path) -> tuple[str, float]:
    """From one replica to four; what it takes, and the mean time of a start."""
    penstock.kubectl("patch", "infdep", _NAME, "--type=merge", "-p", '{"spec": {"scaling": {"minReplicas": 1}}}')
    parts.until("one replica", lambda: len(penstock.gateway.receiving("default", _NAME)) == 1 == _wanted(penstock), 240)
    with Watch(penstock) as watch:
        for turn in range(_STEP_TURNS):
            infer_at(url, parts.request_body(), draw_arrivals([66.0] * 20, turn))
            if watch.first(running=MOST) is not None:
                break
    report.progress(f"step: {[(round(each.at), each.wanted, each.running) for each in watch.looks[::20]]}")
    decided = watch.first(wanted=2) or 0.0
    starts = [
        there - asked
        for number in range(2, MOST + 1)
        if (there := watch.first(running=number)) is not None and (asked := watch.first(wanted=number)) is not None
    ]
    last = watch.first(wanted=MOST) or float("nan")
    phases = {"first decided": decided, "until all were": last - decided, **_phases(traces, watch)}
    all_there = watch.first(running=MOST)
    text = f"1 to {MOST} replicas in {all_there or float('nan'):.1f} s: {_dominating(phases)}"
    for change in penstock.get("default", _NAME)["status"].get("scalingHistory", ()):
        report.progress(f"history: {change}")
    return text, statistics.mean(starts)


def _phases(traces: Path, watch: Watch) -> dict[str, float]:
    """Mean seconds by phase of the replicas that began since, each from its decision on."""
    time.sleep(2.0)  # until the last spans were sent
    spans = [each.span for each in load_spans(traces) if each.span.start_ns >= watch.began_ns]
    found = {name: [(each.end_ns - each.start_ns) / 1e9 for each in spans if each.name == name] for name in _PHASES}
    begins = sorted((each.start_ns - watch.began_ns) / 1e9 for each in spans if each.name == _PHASES[0])
    # The first that begins is of the first decision, and so on: some are decided later than others.
    least = min(each.wanted for each in watch.looks)
    asked = [watch.first(wanted=least + number) or 0.0 for number in range(1, len(begins) + 1)]
    waits = [max(0.0, begin - when) for begin, when in zip(begins, asked, strict=True)]
    placed = {"placed by Ray": statistics.mean(waits)} if waits else {}
    return placed | {name: statistics.mean(taken) for name, taken in found.items() if taken}


def _dominating(phases: dict[str, float]) -> str:
    longest = max(phases, key=lambda name: phases[name])
    return ", ".join(f"{name} {taken:.2f} s" for name, taken in phases.items()) + f"; most of it: {longest}"


def _validate(
    penstock: Platform, url: str, start_seconds: float, times: float
) -> tuple[list[dict[str, Any]], dict[str, float], dict[str, float]]:
    parts.until("one replica", lambda: len(penstock.gateway.receiving("default", _NAME)) == 1 == _wanted(penstock), 240)
    rates = [rate for seconds, rate in LOAD for _ in range(seconds)]
    with Watch(penstock) as watch:
        outcome = infer_at(url, parts.request_body(), draw_arrivals(rates, 7))
    arrivals = sorted(each.sent for each in outcome.answers)
    wanted, running = watch.by_second(len(rates))
    real = _Figures(
        wanted, running, _violations(outcome), [each.seconds for each in outcome.answers if each.status == 200]
    )
    service = ServiceTimes(tuple((rows, FIRST_SECONDS + ROW_SECONDS * rows) for rows in range(1, BATCH + 1)), BATCH)
    case = ReplayCase(service, SLO_SECONDS, start_seconds, minimum=1, maximum=MOST, estimate_times=times)
    simulated = _replay(case, arrivals, len(rates))
    faster = replace(service, points=tuple((rows, seconds / _CONTROL) for rows, seconds in service.points))
    control = _replay(replace(case, service=faster), arrivals, len(rates))
    rows = [each.row(what) for what, each in (("real", real), ("simulated", simulated), ("control", control))]
    return rows, _compare(real, simulated), _compare(real, control)


def _estimate_times(url: str) -> float:
    """By what a replica multiplies what it expects, as it has measured by now."""
    told = float(parts.http_json(f"{url}/stats")["model_stats"][0]["penstock"]["estimate_times"])
    report.progress(f"a replica multiplies its estimates by {told:g}")
    return told


@dataclass(frozen=True)
class _Figures:
    wanted: Sequence[int]
    running: Sequence[int]
    violations: int
    latencies: Sequence[float]

    @property
    def requests(self) -> int:
        return len(self.latencies) + self.violations

    def latency(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def row(self, what: str) -> dict[str, Any]:
        return {
            "run": what, "answered": len(self.latencies), "violations": self.violations,
            "replica-seconds wanted": sum(self.wanted), "running": sum(self.running), "most": max(self.running),
            "p50 s": round(self.latency(0.5), 3), "p95 s": round(self.latency(0.95), 3), "p99 s": round(self.latency(0.99), 3),
            "by 10 s": " ".join(str(each) for each in self.running[::10]),
        }  # fmt: skip


def _violations(outcome: Outcome) -> int:
    return sum(each.status != 200 or each.seconds > SLO_SECONDS for each in outcome.answers)


def _replay(case: ReplayCase, arrivals: Sequence[float], seconds: int) -> _Figures:
    family = POLICIES["penstock"]
    result: ReplayResult = simulate(case, arrivals, seconds, family.make(case, {**family.defaults, "window": WINDOW}))
    return _Figures(result.wanted, result.running, result.violations, list(result.latencies))


def _compare(real: _Figures, other: _Figures) -> dict[str, float]:
    """By what the other is off; see `BOUNDS`."""
    replicas = statistics.mean(abs(a - b) for a, b in zip(real.running, other.running, strict=True))
    return {
        "replicas": replicas,
        "replica-seconds": abs(sum(other.running) / sum(real.running) - 1),
        "violations": abs(real.violations - other.violations) / real.requests,
        "p95": abs(other.latency(0.95) / real.latency(0.95) - 1),
    }


def _say(errors: dict[str, float]) -> str:
    return (
        f"{errors['replicas']:.2f} replicas on average, {errors['replica-seconds']:.0%} of replica-seconds, "
        f"{errors['violations']:.1%} of requests in violations, {errors['p95']:.0%} of p95"
    )


if __name__ == "__main__":
    sys.exit(main())
