"""The optimization resources of `penstock.dev/v1alpha1`: profiles, and runs of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from penstock.api.meta import Condition, Described, IntOrString, ObjectMeta, Quantity
from penstock.api.v1alpha1 import ModelSource, ProfileReference, Resources
from penstock.optimization.measurements import MetricName, Scenario
from penstock.optimization.recipes import EngineName, PruneMethod, QuantizeMethod

Ratio = IntOrString
"""A decimal from "0" to "1", such as `"0.99"`; Kubernetes has no floats in specs."""
Decimal = IntOrString
"""A decimal of 0 or more, such as `"1.1"`."""


class GraphOptimizeStep(Described):
    """Folds constants, fuses operators and drops what is not used."""

    simplify: bool = True
    """Also rewrite the graph ahead of the engine's own passes."""


class QuantizeStep(Described):
    """Fewer bits for weights, and perhaps for activations."""

    methods: Annotated[tuple[QuantizeMethod, ...], Field(min_length=1, max_length=8)]
    """Each is tried with each engine that can run it."""
    calibration_samples: Annotated[int, Field(ge=1, le=100_000)] = 300
    """Samples from which activation ranges are learned."""


class PruneStep(Described):
    """Fewer weights."""

    methods: Annotated[tuple[PruneMethod, ...], Field(min_length=1, max_length=3)]
    """Each is tried with each of the sparsities. Only Structured makes models faster on CPUs."""
    sparsities: Annotated[tuple[Ratio, ...], Field(min_length=1, max_length=4)] = ("0.5",)
    """Shares of channels, or of weights, to drop. Each is tried."""
    fine_tuning_epochs: Annotated[int, Field(ge=0, le=1000)] = 10
    """Over the training split, after pruning."""


class DistilStep(Described):
    """A smaller student learns from the model. A control trained on the labels alone is always trained beside it."""

    student_import_path: Annotated[str, Field(max_length=253)] | None = None
    """`package.module:callable` that gives the student's `torch.nn.Module`. Left out: the model itself, narrower."""
    widths: Annotated[tuple[Ratio, ...], Field(min_length=1, max_length=4)] = ("0.5", "0.25")
    """Of an automatic student's layers, as shares of the model's. Each is tried."""
    temperature: Decimal = "4"
    """By which outputs are divided before the softmax: the higher, the more the student sees of unlikely classes."""
    soft_label_weight: Ratio = "0.7"
    """Of the model's outputs in the student's loss; the rest is the labels'."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 40
    """Over the training split. Too few can make the student worse than its control."""


class CompileStep(Described):
    """Compiles the model for this very machine."""

    mode: Literal["Default", "MaxAutotune"] = "Default"
    """MaxAutotune tries several kernels for each operator, which takes minutes more."""


class Steps(Described):
    """What may be done. A step that is left out is not tried; combinations are tried in this order."""

    distil: DistilStep | None = None
    prune: PruneStep | None = None
    graph_optimize: GraphOptimizeStep | None = None
    quantize: QuantizeStep | None = None
    compile: CompileStep | None = None


class HardwareSelector(Described):
    """Where the profile is worth trying. A run elsewhere is rejected with the reason."""

    architectures: Annotated[tuple[Annotated[str, Field(max_length=32)], ...], Field(max_length=4)] = ()
    """`x86_64`, `aarch64`. Empty: any."""
    instruction_sets: Annotated[tuple[Annotated[str, Field(max_length=32)], ...], Field(max_length=16)] = ()
    """The kernel's flags that must be there, such as `avx512_vnni`."""
    accelerator_required: bool = False
    """Only where the replica has a GPU."""


class DataSource(Described):
    """Samples. The model's own `dataUri` goes first."""

    storage_uri: Annotated[str, Field(max_length=2048)] | None = None
    """A `.npz` file, or a folder with `calibration.npz`, `train.npz`, `validation.npz` and `test.npz`. Arrays are named
    by the model's inputs; `labels` is optional. Left out: samples are made from the model's signature."""
    max_samples: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Of the evaluation, at most."""


class Workload(Described):
    """How requests come, as MLPerf Inference has it."""

    scenario: Scenario = Scenario.SERVER
    """SingleStream: one at a time. Server: they arrive as a Poisson process. Offline: all are there at once."""
    batch_sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=8)] = (1, 8)
    """At which candidates are compared. The first counts most."""
    max_batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Up to which the batch curve is measured."""


class AccuracyConstraint(Described):
    """What a candidate may lose. Both bounds hold where both are given."""

    metric: MetricName | None = None
    """Left out: it follows from the outputs and the labels, for each output, and the worst counts."""
    import_path: Annotated[str, Field(max_length=253)] | None = None
    """For the metric `ImportPath`: `package.module:callable` from (outputs, labels) to a figure for each sample."""
    top_k: Annotated[int, Field(ge=1, le=1000)] = 5
    """For the metric `TopK`."""
    min_ratio: Ratio | None = None
    """Least ratio of the candidate's figure to the baseline's."""
    max_loss_points: Decimal | None = None
    """Greatest loss in points: hundredths of the metric."""
    min_value: Decimal | None = None
    """Least figure of the candidate itself, such as a mean cosine of `"0.995"`."""
    confidence: Ratio = "0.95"
    """One-sided, of the bound that must keep the constraint."""
    certify: bool = True
    """The confidence bound must keep the constraint. False: the point estimate is enough, and the report says so."""


class Constraints(Described):
    """What a candidate must keep."""

    accuracy: AccuracyConstraint = AccuracyConstraint(max_loss_points="1")
    latency_p99_milliseconds: Annotated[int, Field(ge=1, le=600_000)] | None = None
    """Under load, in the workload's scenario."""
    memory: Quantity | None = None
    """Peak of the process that runs the model."""
    min_speedup: Decimal = "1.1"
    """Against ONNX Runtime fp32, in the objective's figure. Below it a change is not worth its risk."""


class Objective(StrEnum):
    """What is to become better."""

    LATENCY = "Latency"
    """Time of one run at the first batch size."""
    THROUGHPUT = "Throughput"
    """Requests a second under load."""
    MEMORY = "Memory"
    """Peak memory, then size."""
    COST = "Cost"
    """CPU seconds of a request under load."""
    ENERGY = "Energy"
    """Joules where they can be measured, else CPU seconds of a request."""


class Strategy(StrEnum):
    """How hard to look."""

    RAPID = "Rapid"
    """Each method with its usual settings."""
    THOROUGH = "Thorough"
    """Also their combinations and knobs."""


class Search(Described):
    """How candidates are found."""

    strategy: Strategy = Strategy.RAPID
    """Rapid: each method with its usual settings. Thorough: also their combinations and knobs."""
    budget_minutes: Annotated[int, Field(ge=1, le=10_080)] = 20
    """No trial begins after this. What was decided by then stands."""
    finalists: Annotated[int, Field(ge=1, le=10)] = 2
    """How many get the full accuracy test and the load test."""


class OptimizationProfileSpec(Described):
    """A recipe book: what may be tried, on what data, under which constraints, for which objective. Immutable."""

    steps: Steps = Steps()
    engines: Annotated[tuple[EngineName, ...], Field(min_length=1, max_length=len(EngineName))] = (
        EngineName.ONNX_RUNTIME,
    )
    """Each is tried with each combination of steps that it can run."""
    hardware: HardwareSelector = HardwareSelector()
    data: DataSource = DataSource()
    workload: Workload = Workload()
    constraints: Constraints = Constraints()
    objective: Objective = Objective.LATENCY
    """What is to become better: Latency, Throughput, Memory, Cost (CPU seconds of a request) or Energy."""
    search: Search = Search()


class OptimizationProfile(Described):
    """A profile for the models of one namespace."""

    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    kind: Literal["OptimizationProfile"] = "OptimizationProfile"
    metadata: ObjectMeta
    spec: OptimizationProfileSpec


class ClusterOptimizationProfile(Described):
    """A profile for the models of all namespaces."""

    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    kind: Literal["ClusterOptimizationProfile"] = "ClusterOptimizationProfile"
    metadata: ObjectMeta
    spec: OptimizationProfileSpec


class OptimizationRunSpec(Described):
    """What is to be measured. Immutable."""

    model: ModelSource
    profile_ref: ProfileReference
    resources: Resources = Resources()
    """Of the replica that will serve; the run gets the same, on the same kind of node."""
    latency_p99_milliseconds: Annotated[int, Field(ge=1, le=600_000)] | None = None
    """Bound of the load test."""


class RunProgress(Described):
    """Where a run stands."""

    stage: str = ""
    """Prepare, Feasibility, Build, Gate, Measure, Certify, Load or Publish."""
    message: str = ""
    """What it does now."""
    found: str = ""
    """What it has found so far, in a sentence; empty where that is nothing yet."""
    completed_trials: int = 0
    """Of this stage."""
    total_trials: int = 0
    """Of this stage."""


class RunFigures(Described):
    """Before and after, as text for people. `report.json` has the numbers."""

    baseline: str = ""
    """What the speed-up is against, such as `TorchEager fp32`."""
    speedup: str = ""
    """In CPU time at the first batch size, such as `8.40x`."""
    speedup_against_onnx_runtime: str = ""
    """The same against ONNX Runtime fp32."""
    latency_p99: str = ""
    """Such as `4.10 ms → 0.48 ms`."""
    throughput: str = ""
    """Such as `240/s → 2110/s`."""
    size: str = ""
    """Of the files, such as `102 MB → 25.7 MB`."""
    memory: str = ""
    """Peak of the process, such as `302 MB → 122 MB`."""
    accuracy: str = ""
    """With the metric's name."""


class RunCapacity(Described):
    """The measured figures from which a deployment's `Auto` settings are taken."""

    max_batch_size: int = 1
    """Rows in a batch, past which the batch curve gains nothing, or breaks the bound."""
    max_delay_milliseconds: int = 0
    """How long it pays to wait for more."""
    target_in_flight_requests: int = 1
    """That one replica carries within the bound."""
    requests_per_second: str = ""
    """Of one replica."""


class Artifact(Described):
    """The optimized model in the artifact store."""

    storage_uri: str
    """Its folder."""
    model_format: str
    """What its engine loads."""
    digest: str
    """Of its manifest."""
    public_key: str = ""
    """In PEM: of the run, whose signature replicas demand."""
    made_from: str = ""
    """Digest of the model that it was made from."""


class OptimizationRunStatus(Described):
    """What came out."""

    observed_generation: int = 0
    """The `metadata.generation` that this status is about."""
    conditions: tuple[Condition, ...] = ()
    """`Complete` says whether a verdict was reached; `Accepted` which."""
    verdict: str | None = None
    """Accepted, Rejected or NoDecision."""
    summary: str = ""
    """The verdict in a sentence."""
    recipe: str | None = None
    """What was chosen."""
    progress: RunProgress = RunProgress()
    figures: RunFigures | None = None
    capacity: RunCapacity | None = None
    artifact: Artifact | None = None
    report_uri: str | None = None
    """Folder with `report.html` and `report.json`."""
    attempts: int = 0
    """Jobs that were started."""
    start_time: str | None = None
    """RFC 3339 in UTC."""
    completion_time: str | None = None
    """RFC 3339 in UTC."""


class OptimizationRun(Described):
    """One measured before and after of one model on one kind of hardware."""

    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    kind: Literal["OptimizationRun"] = "OptimizationRun"
    metadata: ObjectMeta
    spec: OptimizationRunSpec
    status: OptimizationRunStatus = OptimizationRunStatus()
