"""The optimized digits model through the gateway, beside the baseline: requests/s per core at the same p99, and memory.

One gateway, and one replica process a model, all on the first core; the client has the second. The baseline is there
twice: what differs between those two is noise. The rate that counts is that of an open loop, whose p99 is no longer
than the baseline's own at 60 % of the most that it answers.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tests.benchmarks import parts, processes, report
from tests.benchmarks.models.image_load import Load, Served, image_request, run_load
from tests.integration.replica_process import fresh_replica as replica

from penstock.routing.tokens import replica_token
from penstock.serving.manifest import MANIFEST_NAME, ModelManifest
from penstock.serving.settings import BatchingSettings
from penstock_optimizer.artifact import INPUT_NAME, DigitsArtifact, Images

CONNECTIONS = (1, 16, 64)
SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Rates that are tried, as shares of the most that a model answers in a closed loop."""
BOUND_SHARE = 0.6
"""Where the bound is taken from. Higher up, p99 says more of what else runs on the machine than of the model."""
BASELINE, AGAIN, OPTIMIZED = "baseline", "baseline 2", "optimized"
_QUIET = {"OTEL_SDK_DISABLED": "true"}
_CHECKED = 200
_MIB = 1 << 10


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is served through the gateway."""

    name: str
    url: str
    requests: Path
    request_bytes: int
    replica: tuple[int, ...]
    gateway: tuple[int, ...]

    def load(self, seconds: float, connections: int = 64, per_second: float | None = None, seed: int = 0) -> Load:
        """A load on it."""
        return Load(
            self.url, str(self.requests), self.request_bytes, seconds, self.replica, self.gateway, connections,
            per_second, seed,
        )  # fmt: skip


Runs = dict[tuple[str, float], list[Served]]
"""By subject, and connections or share; one of each round."""


def run(baseline: Path, optimized: Path, trusted_key: str) -> None:
    """Measure, and publish `models-serving`.

    Args:
        baseline: the model folder of the built digits artifact; its test images are what is sent.
        optimized: a model folder or a signed artifact's.
        trusted_key: in PEM, of who signed it; empty: it is not signed.
    """
    images = DigitsArtifact(baseline.parent).test_images()
    folders = {BASELINE: baseline, AGAIN: baseline, OPTIMIZED: optimized}
    with tempfile.TemporaryDirectory(prefix="pbench") as folder, ExitStack() as stack:
        report.progress("serving: starting the gateway and the replicas")
        subjects = _start(stack, Path(folder), folders, images, trusted_key)
        right = {subject.name: _right(subject, images) for subject in subjects}
        closed = _closed(subjects, seconds=1.0, rounds=2)
        most = {
            name: max(_medians(closed[name, count]).requests_per_second for count in CONNECTIONS) for name in folders
        }
        opened = _opened(subjects, most, seconds=1.0, rounds=3)
        memory = {subject.name: memory_mib(subject.replica) for subject in subjects}
    _publish(closed, opened, memory, right)


def _start(
    stack: ExitStack, home: Path, folders: dict[str, Path], images: Images, trusted_key: str
) -> list[Subject]:  # fmt: skip
    edge = stack.enter_context(parts.gateway(home / "gateway", _QUIET))
    subjects = []
    for name, folder in folders.items():
        model = name.replace(" ", "-")
        started = stack.enter_context(
            replica(
                folder, _QUIET, model=model, replica_id=model, batching=_batching(folder),
                gateways=(edge.control_url,), registration_token=replica_token(edge.secret, "default", model),
                trusted_keys=(trusted_key,) if trusted_key else (),
                require_signature=False,
            )
        )  # fmt: skip
        parts.until(f"the lease of {model}", partial(edge.receiving, "default", model), 30)
        url = f"{edge.url}/v2/models/{model}/infer"
        requests = [image_request(url, INPUT_NAME, image) for image in images.images]
        file = home / f"{model}.requests"
        file.write_bytes(b"".join(requests))
        (size,) = {len(request) for request in requests}
        pids = tuple(processes.descendants(started.process.pid))
        subjects.append(Subject(name, url, file, size, pids, tuple(processes.descendants(edge.pid))))
    for pid in {pid for subject in subjects for pid in (*subject.replica, *subject.gateway)}:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), sorted(os.sched_getaffinity(0))[:1])
    return subjects


def _batching(folder: Path) -> BatchingSettings:
    """As a deployment would have it: by the measured capacity where there is one."""
    manifest = ModelManifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
    measured = manifest.optimization.capacity if manifest.optimization else None
    if measured is None:
        return BatchingSettings()
    return BatchingSettings(
        max_batch_size=measured.max_batch_size, max_delay_milliseconds=measured.max_delay_milliseconds
    )


def _right(subject: Subject, images: Images) -> float:
    """The share of test images, in percent, whose label is the answer's."""
    right = 0
    with httpx.Client(timeout=30) as client:
        for image, label in zip(images.images[:_CHECKED], images.labels, strict=False):
            head, _, body = image_request(subject.url, INPUT_NAME, image).partition(b"\r\n\r\n")
            headers = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
            answer = client.post(subject.url, content=body, headers=dict(headers)).raise_for_status()
            logits = np.frombuffer(answer.content[int(answer.headers["Inference-Header-Content-Length"]) :], "<f4")
            right += int(logits.argmax() == label)
    return 100 * right / min(_CHECKED, len(images.labels))


def _closed(subjects: Sequence[Subject], seconds: float, rounds: int) -> Runs:
    """As many requests as so many connections get through."""
    return _interleaved(subjects, CONNECTIONS, rounds, lambda who, count, _: who.load(seconds, connections=int(count)))


def _opened(subjects: Sequence[Subject], most: dict[str, float], seconds: float, rounds: int) -> Runs:
    """Shares of the most that each answers, with the same arrivals for all in a round."""
    return _interleaved(
        subjects, SHARES, rounds,
        lambda who, share, number: who.load(seconds, per_second=share * most[who.name], seed=2 * number),
    )  # fmt: skip


def _interleaved(
    subjects: Sequence[Subject], loads: Sequence[float], rounds: int, load: Callable[[Subject, float, int], Load]
) -> Runs:
    client = str(max(os.sched_getaffinity(0)))
    runs: Runs = {}
    order = list(itertools.product(loads, subjects))
    for number in range(rounds):
        report.progress(f"serving: round {number + 1} of {rounds}")
        random.shuffle(order)
        for value, subject in order:
            served = run_load(load(subject, value, number), client)
            if served.errors:
                raise RuntimeError(f"{subject.name} under {value:g}: {served.errors} errors")
            runs.setdefault((subject.name, value), []).append(served)
    return runs


def _medians(runs: Sequence[Served]) -> Served:
    return Served(**{field: statistics.median(asdict(each)[field] for each in runs) for field in asdict(runs[0])})


def at_bound(ladder: Sequence[Served], bound_ms: float) -> Served:
    """The greatest rate whose p99 keeps the bound, between rungs by the logarithm of their p99s.

    Raises:
        RuntimeError: even the lowest rung is slower.
    """
    kept = [number for number, rung in enumerate(ladder) if rung.p99_ms <= bound_ms]
    if not kept:
        raise RuntimeError(f"no rate keeps a p99 of {bound_ms:.3g} ms: is something else running on this machine?")
    below = ladder[kept[-1]]
    if kept[-1] == len(ladder) - 1:
        return below
    above = ladder[kept[-1] + 1]
    share = math.log(bound_ms / below.p99_ms) / math.log(above.p99_ms / below.p99_ms)
    return replace(below.towards(above, share), p99_ms=bound_ms)


def memory_mib(pids: Sequence[int]) -> dict[str, float]:
    """Resident, proportional and peak resident memory of a replica's processes, in MiB."""
    found = {"RSS MiB": 0.0, "PSS MiB": 0.0, "peak MiB": 0.0}
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        kib = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines) if key[:2] == "Vm"}
        found["RSS MiB"] += kib["VmRSS"] / _MIB
        found["PSS MiB"] += processes.memory_mib(pid)
        found["peak MiB"] += kib["VmHWM"] / _MIB
    return found


def _publish(closed: Runs, opened: Runs, memory: dict[str, dict[str, float]], right: dict[str, float]) -> None:
    bound = _medians(opened[BASELINE, BOUND_SHARE]).p99_ms
    best = {name: at_bound([_medians(opened[name, share]) for share in SHARES], bound) for name in memory}
    loads: dict[str, dict[str, Served]] = {
        str(count): {name: _medians(closed[name, count]) for name in memory} for count in CONNECTIONS
    } | {f"p99 ≤ {bound:.3g} ms": best}
    rows = [
        _row(load, name, served, by_name[BASELINE]) | {key: round(value) for key, value in memory[name].items()}
        for load, by_name in loads.items()
        for name, served in by_name.items()
    ]
    report.publish(
        "models-serving",
        "The digits model through the gateway before and after; gateway and replica on one core, client on the other",
        rows,
        [_verdict(best), *_notes(right), *(_ladder(name, opened) for name in memory)],
    )


def _verdict(best: dict[str, Served]) -> str:
    before, after = best[BASELINE], best[OPTIMIZED]
    gain, noise = (best[name].requests_per_second / before.requests_per_second for name in (OPTIMIZED, AGAIN))
    return (
        f"At the same p99 the core answers {gain:.2f} × as many requests (the baseline against itself: {noise:.2f}); "
        f"by CPU time {before.cpu_us / after.cpu_us:.2f} × with the gateway's share, "
        f"{before.replica_cpu_us / after.replica_cpu_us:.2f} × in the replica alone."
    )


def _notes(right: dict[str, float]) -> list[str]:
    return [
        f"That bound is the baseline's p99 at {BOUND_SHARE:.0%} of the most that it answers; open loop, Poisson arrivals.",
        "/s/core: requests by CPU seconds of gateway and replica.",
        "Memory is the replica's after the load; pages that the three share are split among them in PSS.",
        "Right of the test images: " + ", ".join(f"{name} {share:.1f} %" for name, share in right.items()) + ".",
    ]


def _ladder(name: str, opened: Runs) -> str:
    rungs = ((share, _medians(opened[name, share])) for share in SHARES)
    return f"{name}, p99 in ms by rate: " + ", ".join(
        f"{rung.p99_ms:.3g} at {rung.requests_per_second:.0f}/s ({share:.0%})" for share, rung in rungs
    )


def _row(load: str, name: str, served: Served, baseline: Served) -> dict[str, Any]:
    return {
        "connections": load,
        "model": name,
        "requests/s": round(served.requests_per_second),
        "×": round(served.requests_per_second / baseline.requests_per_second, 2),
        "p50 ms": round(served.p50_ms, 3),
        "p99 ms": round(served.p99_ms, 3),
        "CPU µs": round(served.cpu_us, 1),
        "/s/core": round(1e6 / served.cpu_us),
        "× CPU": round(baseline.cpu_us / served.cpu_us, 2),
        "replica µs": round(served.replica_cpu_us, 1),
        "× replica": round(baseline.replica_cpu_us / served.replica_cpu_us, 2),
    }
