"""Figures of a variant. Times are in the unit that the name says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from penstock.models import Frozen
from penstock.routing.outcomes import Losses
from penstock.serving.joining import Joining


class Scenario(StrEnum):
    """MLPerf Inference's scenarios."""

    SINGLE_STREAM = "SingleStream"
    """One request at a time; latency counts."""
    SERVER = "Server"
    """Requests arrive as a Poisson process; throughput at a latency bound counts."""
    OFFLINE = "Offline"
    """All samples are there at once; throughput counts."""


class MetricName(StrEnum):
    """How good a model is. Each has its row in `METRICS`."""

    ACCURACY = "Accuracy"
    TOP_K = "TopK"
    F1 = "F1"
    MEAN_SQUARED_ERROR = "MeanSquaredError"
    COSINE = "Cosine"
    """Mean cosine similarity of each sample's output with the baseline's. Needs no labels."""
    RANK_AGREEMENT = "RankAgreement"
    """Share of samples whose nearest neighbour among the samples is the baseline's. Needs no labels."""
    IMPORT_PATH = "ImportPath"
    AGREEMENT = "Agreement"
    """Share of answers that are the baseline's: the class, the flag, the whole number or the string. Needs no labels."""
    R2 = "R2"
    """1 less the squared error over what a constant answer's would be: against labels of the output's shape, or else
    against the baseline."""
    RELATIVE_ERROR = "RelativeError"
    """1 less the mean relative error: each error over the right answer's magnitude and the answers' usual spread. Against
    labels of the output's shape, or else against the baseline."""
    NEIGHBOURS = "Neighbours"
    """How near each sample's nearest neighbour is, where the candidate's outputs choose it and the baseline's cosines
    measure it. 1: as near as the baseline's own; 0: as near as any sample. Needs no labels."""
    OVERLAP = "Overlap"
    """Mean intersection over union of masks or boxes with the labels'."""
    RANKING = "Ranking"
    """Mean NDCG of each sample's scores, by labels that are grades."""


class Suits(StrEnum):
    """What a metric is for."""

    CLASSES = "Classes"
    """An output with the classes that labels give."""
    GRADES = "Grades"
    """An output like labels that are masks, boxes or grades."""
    NUMBERS = "Numbers"
    """Floats, against labels of their shape, or else against the baseline's."""
    DIRECTIONS = "Directions"
    """Floats, against the baseline's, whatever their scale is."""
    ANYTHING = "Anything"


@dataclass(frozen=True, slots=True)
class MetricFacts:
    """What holds for a metric, beside how it is computed (`penstock_optimizer.metrics.comparing`)."""

    suits: Suits
    words: str = "{name}{output} {baseline:.4f} → {candidate:.4f} on"
    """A result for people: before how many samples it is of. `before` and `after` are what is missing to 1."""
    decides_class: bool = False
    """It looks at the class that an output gives, and at nothing else of it."""
    one_scale: bool = False
    """It takes all numbers of an output together, so that what is small beside what is large may be lost unseen."""
    smaller: bool = False
    """It is better when it is smaller."""
    loss: Losses = Losses.AUTO
    """By what live answers are compared where a profile judges by it: what it looks at of an answer. The best of several classes,
    masks and a user's own function have no loss of their own."""


METRICS: Final[Mapping[MetricName, MetricFacts]] = {
    MetricName.ACCURACY: MetricFacts(Suits.CLASSES, decides_class=True, loss=Losses.ARGMAX),
    MetricName.TOP_K: MetricFacts(Suits.CLASSES, decides_class=True),
    MetricName.F1: MetricFacts(Suits.CLASSES, decides_class=True, loss=Losses.ARGMAX),
    MetricName.MEAN_SQUARED_ERROR: MetricFacts(Suits.NUMBERS, smaller=True, loss=Losses.RELATIVE),
    MetricName.COSINE: MetricFacts(
        Suits.DIRECTIONS, "mean cosine{output} {candidate:.4f} to the baseline on", one_scale=True, loss=Losses.COSINE
    ),
    MetricName.RANK_AGREEMENT: MetricFacts(
        Suits.DIRECTIONS, "nearest neighbours{output} agree for {candidate:.1%} of", one_scale=True, loss=Losses.COSINE
    ),
    MetricName.IMPORT_PATH: MetricFacts(Suits.ANYTHING),
    MetricName.AGREEMENT: MetricFacts(
        Suits.ANYTHING,
        "answers{output} equal the baseline's for {candidate:.2%} of",
        decides_class=True,
        loss=Losses.ARGMAX,
    ),
    MetricName.R2: MetricFacts(Suits.NUMBERS, one_scale=True, loss=Losses.RELATIVE),
    MetricName.RELATIVE_ERROR: MetricFacts(
        Suits.NUMBERS, "mean relative error{output} {before:.2%} → {after:.2%} on", loss=Losses.RELATIVE
    ),
    MetricName.NEIGHBOURS: MetricFacts(Suits.DIRECTIONS, one_scale=True, loss=Losses.COSINE),
    MetricName.OVERLAP: MetricFacts(Suits.GRADES),
    MetricName.RANKING: MetricFacts(Suits.GRADES, loss=Losses.RANK),
}


class Role(StrEnum):
    """What a measured process is for."""

    BASELINE = "Baseline"
    """What ratios are to: torch eager fp32 where the source allows, else ONNX Runtime fp32."""
    SECOND_BASELINE = "SecondBaseline"
    """ONNX Runtime fp32, where the baseline is torch."""
    SAME_AGAIN = "SameAgain"
    """A/A: another process of the baseline. Outside ±10 % nothing is decided."""
    NEGATIVE_CONTROL = "NegativeControl"
    """The second baseline with half its weights zeroed, which no dense kernel runs faster. Read against that baseline;
    above 1.10 nothing is decided."""
    CANDIDATE = "Candidate"


class EnergyMethod(StrEnum):
    """Where joules come from. An estimate is never claimed as a saving."""

    MEASURED_RAPL = "measured-rapl"
    MEASURED_NVML = "measured-nvml"
    ESTIMATED = "estimated"
    """CPU seconds are what was measured; no joules are given."""


class Energy(Frozen):
    """Energy of one sample."""

    method: EnergyMethod
    cpu_seconds_per_sample: float
    joules_per_sample: float | None = None
    """None where it was not measured."""


class Timing(Frozen):
    """One variant in one session of interleaved rounds, at one batch size."""

    role: Role
    recipe_key: str
    """Of the recipe that runs; the A/A copy carries the baseline's."""
    batch_size: Annotated[int, Field(ge=1)]
    rounds: int
    runs: int
    """Engine runs in all rounds, without warm-up."""
    cpu_seconds_per_run: tuple[float, ...]
    """One figure a round: the process's CPU time over the round's runs."""
    wall_seconds_per_run: tuple[float, ...] = ()
    """Likewise by the wall's clock."""
    accelerated: bool = False
    """A GPU did the work: then wall time counts, not CPU time."""
    wall_milliseconds_p50: float
    wall_milliseconds_p99: float
    histogram_milliseconds: tuple[tuple[float, int], ...] = ()
    """Upper bound and count of each bucket of wall time, for the report's distributions."""
    peak_memory_bytes: int
    """Peak resident set of the process."""
    load_seconds: float
    energy: Energy


class Ratio(Frozen):
    """A speed-up: the median over rounds of (reference / variant) CPU time of the same round."""

    value: float
    low: float
    high: float
    """Bounds of the 95 % bootstrap interval."""


class Judgement(Frozen):
    """By what one output of a candidate is judged. Chosen on the baseline's outputs, before the first candidate is built."""

    metric: MetricName
    output: str
    """Name; empty where the metric takes all outputs, as an import path's does."""
    labelled: bool = False
    """Against the labels; otherwise against the baseline's own answers."""
    threshold: float | None = None
    """Of an output with two classes and one score: above it is the second."""
    reason: str = ""
    """Why, for people: `labels are float32 of shape (180,)`."""


class AccuracyControl(Frozen):
    """A candidate that is known to be ruined, made of the baseline's outputs. A metric that lets it pass can tell nothing."""

    name: str
    """What was done: `permuted answers`, `constant answers`."""
    output: str
    """Of which output; empty: of all."""
    metric: str
    """Which lost the most; or what found the ruin."""
    loss: float
    told: bool
    """Whether the constraint refuses it."""


class Company(Frozen):
    """What happens to a variant's answers beside those who may be in the same batch: the worst that was seen."""

    subjects: int
    """Samples that were looked at, alone and in company."""
    rows: int
    """Of a run in company."""
    beside: str
    """Whom: `samples a thousand times as large`."""
    change: float
    """The greatest change of an answer, as a share of its range."""
    problem: str | None = None
    """Why requests may not be joined; None: they may."""


class AccuracyResult(Frozen):
    """A paired comparison of a candidate with the baseline on the same samples."""

    metric: MetricName
    output: str = ""
    """Which output was judged; empty: all."""
    samples: int
    baseline: float
    candidate: float
    loss: float
    """baseline - candidate, in the metric's own unit (a share for accuracy: 0.01 is one point), so that growth is worse;
    for MeanSquaredError candidate - baseline."""
    loss_bound: float
    """One-sided upper confidence bound of the loss."""
    confidence: float
    baseline_right_candidate_wrong: int | None = None
    candidate_right_baseline_wrong: int | None = None
    split: str = "test"
    fault: str | None = None
    """What is wrong whatever the figures are: a class that is never given any more, another scale."""
    others: tuple[AccuracyResult, ...] = ()
    """By the session's other judgements, which all count; this one is the worst."""
    controls: tuple[AccuracyControl, ...] = ()
    """On the same samples."""
    company: Company | None = None
    """None: each run has one sample, or it was not looked at."""


class LoadPoint(Frozen):
    """A finalist under load through the replica's own batcher, in the profile's scenario."""

    recipe_key: str
    requests_per_second: float
    """The most that met the latency bound; without a bound, the most."""
    p50_milliseconds: float
    p99_milliseconds: float
    bound_milliseconds: float | None = None
    cpu_seconds_per_request: float
    joining: Joining | None = None
    """Along which axes its requests can share a run, as trial runs proved; None: they did not."""


class OperatorShare(Frozen):
    """Time of one kind of operator in a profile."""

    operator: str
    calls: int
    milliseconds: float
    """In one run."""
    share: float


class Limit(StrEnum):
    """What holds a model back on this machine."""

    COMPUTE = "Compute"
    MEMORY = "Memory"
    OVERHEAD = "Overhead"
