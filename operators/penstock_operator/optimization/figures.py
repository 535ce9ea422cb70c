"""What a run found, as a status shows it to people."""

from __future__ import annotations

from penstock.api.optimization import Artifact, RunCapacity, RunFigures
from penstock.optimization.progress import Figures, RunResult
from penstock.optimization.recipes import EngineName, Precision

_ONNX_RUNTIME = f"{EngineName.ONNX_RUNTIME} {Precision.FP32}"
_THOUSAND = 1000.0


def describe(figures: Figures | None) -> RunFigures | None:
    """Before and after, each with its unit; empty where it was not measured."""
    if figures is None:
        return None
    return RunFigures(
        baseline=figures.baseline,
        speedup=_times(figures.speedups.get(figures.baseline)),
        speedup_against_onnx_runtime=_times(figures.speedups.get(_ONNX_RUNTIME)),
        latency_p99=_change(figures.latency_p99_milliseconds, "{:.2f} ms"),
        throughput=_change(figures.requests_per_second, "{:.0f}/s"),
        size=_bytes(figures.size_bytes),
        memory=_bytes(figures.memory_bytes),
        accuracy=f"{figures.metric or 'metric'} {_change(figures.accuracy, '{:.4f}')}" if figures.accuracy else "",
    )


def capacity(result: RunResult) -> RunCapacity | None:
    """The settings that follow from the measured batch curve."""
    measured = result.capacity
    if measured is None:
        return None
    return RunCapacity(
        max_batch_size=measured.max_batch_size,
        max_delay_milliseconds=measured.max_delay_milliseconds,
        target_in_flight_requests=measured.target_in_flight_requests,
        requests_per_second=f"{measured.requests_per_second:.0f}",
    )


def artifact(result: RunResult, public_key: str) -> Artifact | None:
    """The optimized model, where one was published, and by whose key its result was signed."""
    if result.artifact_uri is None or result.artifact_digest is None or result.artifact_format is None:
        return None
    return Artifact(
        storage_uri=result.artifact_uri,
        model_format=result.artifact_format.value,
        digest=result.artifact_digest,
        public_key=public_key,
        made_from=result.model_digest or "",
    )


def _times(factor: float | None) -> str:
    return "" if factor is None else f"{factor:.2f}x"


def _change(pair: tuple[float, float] | None, form: str) -> str:
    return "" if pair is None else f"{form.format(pair[0])} → {form.format(pair[1])}"


def _bytes(pair: tuple[int, int] | None) -> str:
    return "" if pair is None else f"{_megabytes(pair[0])} → {_megabytes(pair[1])}"


def _megabytes(amount: float) -> str:
    """Decimal units, with three significant digits: `25.7 MB`."""
    for unit in ("B", "kB", "MB"):
        if amount < _THOUSAND:
            return f"{amount:.3g} {unit}"
        amount /= _THOUSAND
    return f"{amount:.3g} GB"
