"""A report with every outcome, as a search would write it."""

from __future__ import annotations

from penstock.api.optimization import OptimizationProfileSpec
from penstock.optimization.hardware import Hardware
from penstock.optimization.measurements import (
    AccuracyResult,
    Energy,
    EnergyMethod,
    LoadPoint,
    MetricName,
    OperatorShare,
    Ratio,
    Role,
    Timing,
)
from penstock.optimization.recipes import EngineName, EngineSettings, Precision, Recipe, Step, StepName
from penstock.optimization.report import CandidateReport, ControlReport, Outcome, Report, SearchVerdict
from penstock.serving.manifest import BatchPoint, Capacity


def recipe(engine: EngineName, method: str = "", precision: Precision = Precision.FP32) -> Recipe:
    steps = (Step(name=StepName.QUANTIZE, method=method),) if method else ()
    return Recipe(steps=steps, engine=EngineSettings(name=engine, precision=precision))


EAGER = recipe(EngineName.TORCH_EAGER)
RUNTIME = recipe(EngineName.ONNX_RUNTIME)
CHOSEN = recipe(EngineName.ONNX_RUNTIME, "Static")
LOSSY = recipe(EngineName.OPENVINO, "Static")
ABSENT = recipe(EngineName.ONNX_RUNTIME_CUDA)


def timing(of: Recipe, milliseconds: float, role: Role = Role.CANDIDATE) -> Timing:
    return Timing(
        role=role,
        recipe_key=of.key,
        batch_size=1,
        rounds=5,
        runs=500,
        cpu_seconds_per_run=tuple(milliseconds / 1000 * (1 + i / 100) for i in range(5)),
        wall_milliseconds_p50=milliseconds,
        wall_milliseconds_p99=milliseconds * 1.4,
        histogram_milliseconds=tuple((milliseconds * (0.9 + i / 10), 10 - i) for i in range(8)),
        peak_memory_bytes=int(200e6),
        load_seconds=0.1,
        energy=Energy(method=EnergyMethod.ESTIMATED, cpu_seconds_per_sample=milliseconds / 1000),
    )


def accuracy(candidate: float, loss_bound: float) -> AccuracyResult:
    return AccuracyResult(
        metric=MetricName.ACCURACY,
        samples=700,
        baseline=0.9929,
        candidate=candidate,
        loss=0.9929 - candidate,
        loss_bound=loss_bound,
        confidence=0.95,
    )


def report(model: str = "digits") -> Report:
    def speedups(eager: float, runtime: float) -> dict[str, Ratio]:
        return {
            "TorchEager fp32, batch 1": Ratio(value=eager, low=eager * 0.97, high=eager * 1.03),
            "ONNXRuntime fp32, batch 1": Ratio(value=runtime, low=runtime * 0.97, high=runtime * 1.03),
        }

    return Report(
        model=model,
        source_digest="sha256:" + "a" * 64,
        source_size_bytes=2_800_000,
        parameters=696_010,
        profile="ClusterOptimizationProfile/balanced",
        profile_spec=OptimizationProfileSpec(),
        data_digest="sha256:" + "b" * 64,
        synthetic_data=False,
        samples={"calibration": 200, "test": 700},
        verdict=SearchVerdict.ACCEPTED,
        summary="12.6× faster than torch eager fp32 at the same accuracy.",
        chosen=CHOSEN.key,
        candidates=(
            CandidateReport(
                recipe=EAGER,
                outcome=Outcome.BASELINE,
                reason="what ratios are to",
                size_bytes=2_800_000,
                timings=(timing(EAGER, 0.5, Role.BASELINE),),
                operators=(OperatorShare(operator="Conv", calls=3, milliseconds=0.4, share=0.8),),
                load=LoadPoint(
                    recipe_key=EAGER.key,
                    requests_per_second=1900,
                    p50_milliseconds=0.6,
                    p99_milliseconds=1.1,
                    cpu_seconds_per_request=0.0005,
                ),
            ),
            CandidateReport(
                recipe=RUNTIME,
                outcome=Outcome.BASELINE,
                reason="the second baseline",
                size_bytes=2_790_000,
                timings=(timing(RUNTIME, 0.1, Role.SECOND_BASELINE),),
                speedups=speedups(5.0, 1.0),
            ),
            CandidateReport(
                recipe=CHOSEN,
                outcome=Outcome.CHOSEN,
                reason="12.6× with a loss of at most 0.4 points",
                size_bytes=710_000,
                timings=(timing(CHOSEN, 0.04),),
                speedups=speedups(12.6, 2.5),
                accuracy=accuracy(0.9929, 0.004),
                operators=(OperatorShare(operator="QLinearConv", calls=3, milliseconds=0.03, share=0.75),),
            ),
            CandidateReport(
                recipe=LOSSY,
                outcome=Outcome.ACCURACY_LOST,
                reason="lost 8.2 points, at most 1 is allowed",
                size_bytes=700_000,
                gate=accuracy(0.9111, 0.11),
            ),
            CandidateReport(recipe=ABSENT, outcome=Outcome.INFEASIBLE, reason="no CUDA device"),
        ),
        controls=(
            ControlReport(name="A/A", batch_size=1, ratio=Ratio(value=1.01, low=0.99, high=1.03), passed=True),
            ControlReport(
                name="half the weights zeroed", batch_size=1, ratio=Ratio(value=1.2, low=1.1, high=1.3), passed=False
            ),
        ),
        capacity=Capacity(
            curve=tuple(
                BatchPoint(rows=n, p50_milliseconds=0.04 * n, p99_milliseconds=0.05 * n, rows_per_second=25_000 + n)
                for n in (1, 2, 4, 8)
            ),
            max_batch_size=4,
            max_delay_milliseconds=0,
            requests_per_second=21_000,
            target_in_flight_requests=8,
        ),
        hardware=Hardware(architecture="x86_64", cpu="A processor", cores=2, instruction_sets=("avx512_vnni",)),
        library_versions={"onnxruntime": "1.0"},
        command="penstock optimize digits --profile balanced",
        started_at="2026-01-01T00:00:00Z",
        seconds=31,
        budget_seconds=600,
        warnings=("only 700 samples",),
    )
