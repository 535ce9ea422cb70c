"""What the prediction cache costs and gives, by how many of the inputs repeat, beside the same replica without it.

One replica process is told to switch its cache between runs, so that nothing else differs. "Off" runs a second
time under another name: what differs between the two is noise.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tests.benchmarks import parts, report
from tests.benchmarks.load import LoadResult
from tests.benchmarks.repeating import HOT_ROWS
from tests.integration.replica_process import ReplicaProcess
from tests.integration.replica_process import fresh_replica as replica

from penstock.serving.control import Reconfigure
from penstock.serving.settings import BatchingSettings, CacheMode, CacheSettings
from penstock.telemetry import names
from penstock_optimizer.artifact import INPUT_NAME
from penstock_optimizer.digits import build

CONNECTIONS = (1, 16)


@dataclass(frozen=True)
class Case:
    """What a run is about."""

    name: str
    repeated: float
    cache: CacheMode = CacheMode.EXACT


OFF = Case("off", 0.0, CacheMode.OFF)
CASES = (
    OFF,
    Case("off, once more", 0.0, CacheMode.OFF),
    Case("0 % repeated", 0.0),
    Case("50 % repeated", 0.5),
    Case("95 % repeated", 0.95),
    Case("all repeated", 1.0),
)


@dataclass(frozen=True)
class Model:
    """What is served, and its input: the name, and the shape of one row."""

    name: str
    path: Path
    input: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """One run: what the client saw, and what the cache did with its requests."""

    load: LoadResult
    results: dict[str, float]


def main(seconds: float = 2.0, rounds: int = 5) -> None:
    """Measure two models of very different cost, and publish `prediction-cache`."""
    with tempfile.TemporaryDirectory(prefix="pbench") as folder:
        home = Path(folder)
        models = (
            Model("digits", build((report.OUT / "models").absolute()).model_folder, INPUT_NAME, (1, 8, 8)),
            Model("tiny", parts.dense_model(home / "tiny.onnx", (64, 10)), "x", (64,)),
        )
        publish({model.name: run(model, seconds, rounds) for model in models}, seconds, rounds)


def run(model: Model, seconds: float = 2.0, rounds: int = 5) -> dict[tuple[str, int], list[Run]]:
    """All runs of a model, interleaved in random order; by case and connections."""
    runs: dict[tuple[str, int], list[Run]] = {}
    number = itertools.count(1)
    cores = sorted(os.sched_getaffinity(0))
    order = [(case, count) for case in CASES for count in CONNECTIONS]
    with replica(model.path, model=model.name) as started:
        for task in Path(f"/proc/{started.process.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores[:1])
        for turn in range(rounds):
            report.progress(f"{model.name}: round {turn + 1} of {rounds}")
            random.shuffle(order)
            for case, count in order:
                found = _run(started, model, next(number), case, connections=count, seconds=seconds)
                runs.setdefault((case.name, count), []).append(found)
    return runs


def _run(started: ReplicaProcess, model: Model, number: int, case: Case, *, connections: int, seconds: float) -> Run:
    # Off and on again: each run begins with an empty cache that asks for every request.
    for mode in (CacheMode.OFF, case.cache):
        started.send(Reconfigure(batching=BatchingSettings(), cache=CacheSettings(mode=mode)))
    started.stats()
    url = f"{started.url}/v2/models/{model.name}/infer"
    shape = "x".join(map(str, (1, *model.shape)))
    command = [
        "taskset", "-c", str(max(os.sched_getaffinity(0))), sys.executable, "-m", "tests.benchmarks.repeating",
        url, str(connections), str(seconds), str(case.repeated), str(number), model.input, shape, str(started.process.pid),
    ]  # fmt: skip
    before = _results(started)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=seconds + 60)
    load = LoadResult(**json.loads(done.stdout))
    if load.errors:
        raise RuntimeError(f"{model.name}, {case.name}, {connections} connections: {load.errors} errors")
    return Run(load, {result: count - before[result] for result, count in _results(started).items()})


def _results(started: ReplicaProcess) -> dict[str, float]:
    """The replica's counts of what the cache did."""
    text = httpx.get(f"{started.url}/metrics", timeout=30).text
    return {
        sample.labels["result"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == names.METRIC_CACHE_REQUESTS
    }


def rows(model: str, runs: dict[tuple[str, int], list[Run]]) -> list[dict[str, Any]]:
    """Medians over the rounds, beside those without the cache. The ratio is the median of the rounds' own."""
    made = []
    for count in CONNECTIONS:
        for case in CASES:
            here, off = runs[case.name, count], runs[OFF.name, count]
            cpu = statistics.median(each.load.cpu_us_per_answer for each in here)
            ratios = [
                mine.load.requests_per_second / other.load.requests_per_second
                for mine, other in zip(here, off, strict=True)
            ]
            made.append(
                {
                    "model": model,
                    "connections": count,
                    "cache": case.name,
                    "requests/s": round(statistics.median(each.load.requests_per_second for each in here)),
                    "× off": round(statistics.median(ratios), 3),
                    "CPU µs/answer": round(cpu, 1),
                    "p50 ms": round(statistics.median(each.load.p50_ms for each in here), 3),
                    "p99 ms": round(statistics.median(each.load.p99_ms for each in here), 3),
                    "hits %": _share(here, "hit", "shared"),
                    "bypassed %": _share(here, "bypass"),
                }
            )
    return made


def _share(runs: list[Run], *wanted: str) -> float:
    """The median share of requests, in percent, with which the cache did something."""
    shares = [100 * sum(run.results[result] for result in wanted) / max(sum(run.results.values()), 1) for run in runs]
    return round(statistics.median(shares), 1)


def publish(measured: dict[str, dict[tuple[str, int], list[Run]]], seconds: float, rounds: int) -> None:
    """Write `prediction-cache` with the rows of all models."""
    table = [row for model, runs in measured.items() for row in rows(model, runs)]
    worst = min(row["× off"] for row in table if row["cache"] == "0 % repeated" and row["model"] == "digits")
    report.publish(
        "prediction-cache",
        f"The prediction cache by repeated inputs, one replica on one core (medians of {rounds} interleaved rounds of "
        f"{seconds:g} s; client on the other core)",
        table,
        [
            f"bar: at 0 % repeated at least 0.95 × off; measured {worst:g} (digits).",
            f"repeated inputs are drawn from {HOT_ROWS} rows; the others never come again.",
            "'all repeated': every answer is a hit, so its p50 is that of a hit.",
            "each run begins with an empty cache; a cache that does not pay stands aside after 512 requests.",
        ],
    )


if __name__ == "__main__":
    main()
