"""What `/v2/models/NAME/stats` tells: Triton's statistics, and why batches are as large as they are and what was refused."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import orjson

from penstock_runtime.batching.batcher import Batcher
from penstock_serving.replica.call import Call
from penstock_serving.replica.model.parallel import ParallelRuns
from penstock_serving.replica.telemetry.load import Histogram


class RequestStatistics:
    """Sums of what requests took, in nanoseconds; a run adds to them once, not each of its requests."""

    def __init__(self) -> None:
        self.decode_ns = 0
        self.run_ns = 0
        """Of each request, that of all of its run."""
        self.encode_ns = 0
        self.failed_ns = 0
        self.last_ns = 0
        """Of the monotonic clock; 0: nothing ran yet."""
        self.runs: Counter[int] = Counter()
        """By rows."""
        self.runs_ns: Counter[int] = Counter()

    def observe_run(self, rows: int, requests: int, start_ns: int, end_ns: int) -> None:
        """A run has ended."""
        took = end_ns - start_ns
        self.run_ns += took * requests
        self.last_ns = end_ns
        self.runs[rows] += 1
        self.runs_ns[rows] += took


def _duration(count: int, ns: float) -> dict[str, int]:
    return {"count": count, "ns": int(ns)}


def write_statistics(
    model: tuple[str, str],
    sums: RequestStatistics,
    requests: Counter[str],
    histograms: tuple[Histogram, Histogram],
    runs: tuple[Batcher[Call], ParallelRuns],
) -> bytes:
    """The document, in Triton's form, with `penstock` beside its fields.

    Args:
        model: its name and version.
        sums: of requests and runs.
        requests: how many ended, by the reason of their refusal; empty: answered.
        histograms: of whole requests' seconds, and of those that they waited for the engine.
        runs: the batcher, whose curve and choices are told, and how many runs may be under way at once.
    """
    whole, waits = histograms
    answered, failed = requests[""], requests.total() - requests[""]
    executed = sum(waits.counts)
    statistics = {
        "success": _duration(answered, whole.total * 1e9 - sums.failed_ns),
        "fail": _duration(failed, sums.failed_ns),
        "queue": _duration(executed, waits.total * 1e9),
        "compute_input": _duration(executed, sums.decode_ns),
        "compute_infer": _duration(executed, sums.run_ns),
        "compute_output": _duration(executed, sums.encode_ns),
    }
    last = time.time_ns() - time.monotonic_ns() + sums.last_ns if sums.last_ns else 0
    document = {
        "name": model[0],
        "version": model[1],
        "last_inference": last // 1_000_000,
        "inference_count": sum(rows * count for rows, count in sums.runs.items()),
        "execution_count": sums.runs.total(),
        "inference_stats": statistics,
        "batch_stats": [
            {"batch_size": rows, "compute_infer": _duration(count, sums.runs_ns[rows])}
            for rows, count in sorted(sums.runs.items())
        ],
        "penstock": _explain(*runs, requests),
    }
    return orjson.dumps({"model_stats": [document]})


def _explain(batcher: Batcher[Call], parallel: ParallelRuns, requests: Counter[str]) -> dict[str, Any]:
    admission, sizing = batcher.admission, batcher.sizing
    return {
        "curve": [
            {
                "rows": round(point.rows, 1),
                "milliseconds": round(point.seconds * 1e3, 4),
                "least_microseconds_a_row": round(point.seconds_a_row * 1e6, 2),
                "runs": point.runs,
            }
            for _, point in sorted(batcher.curve.points.items())
        ],
        "batch_rows": sizing.rows,
        "batch_reason": sizing.reason,
        "runs_at_once": parallel.runs,
        "threads_a_run": parallel.threads,
        "runs_reason": parallel.reason,
        "waits_for_more": batcher.gathering.chosen > 0,
        "wait_reason": batcher.gathering.reason,
        "objective_milliseconds": None if admission.objective is None else admission.objective * 1e3,
        "answer_within_milliseconds": round(admission.allowance * 1e3, 3),
        "estimate_times": round(admission.margin, 3),
        "queued": batcher.queued,
        "room_for_requests": batcher.capacity,
        "refused": {str(reason): count for reason, count in sorted(requests.items()) if reason},
    }
