"""The report of one search: what JSON says and what the HTML page shows."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from penstock.api.optimization import OptimizationProfileSpec
from penstock.models import Frozen
from penstock.optimization.hardware import Hardware
from penstock.optimization.measurements import (
    AccuracyControl,
    AccuracyResult,
    Judgement,
    LoadPoint,
    OperatorShare,
    Ratio,
    Timing,
)
from penstock.optimization.recipes import Recipe
from penstock.serving.manifest import Capacity


class SearchVerdict(StrEnum):
    """How a search ended."""

    ACCEPTED = "Accepted"
    """A candidate is better, and keeps every constraint."""
    REJECTED = "Rejected"
    """No candidate does: the baseline serves on."""
    NO_DECISION = "NoDecision"
    """The machine was too noisy, the controls failed, or the data cannot certify the asked loss: the baseline serves on."""


class Outcome(StrEnum):
    """Where a candidate ended."""

    CHOSEN = "Chosen"
    BASELINE = "Baseline"
    FINALIST = "Finalist"
    SLOWER = "Slower"
    """It met every constraint that was tested, but others did better."""
    NO_GAIN = "NoGain"
    """Below the minimum speed-up."""
    ACCURACY_LOST = "AccuracyLost"
    NOT_CERTIFIED = "NotCertified"
    """The point estimate is within the constraint and its confidence bound is not: more samples are needed."""
    CONSTRAINT_BROKEN = "ConstraintBroken"
    """p99 or memory."""
    INFEASIBLE = "Infeasible"
    BROKEN = "Broken"
    OUT_OF_BUDGET = "OutOfBudget"
    UNDECIDED = "Undecided"
    """It was measured, but the controls failed."""


class CandidateReport(Frozen):
    """One recipe, from start to end."""

    recipe: Recipe
    outcome: Outcome
    reason: str
    """Why, in a sentence with the figures."""
    size_bytes: int | None = None
    weight_precision: str = ""
    notes: tuple[str, ...] = ()
    figures: dict[str, float] = Field(default={})
    timings: tuple[Timing, ...] = ()
    """Of the last session at each batch size."""
    speedups: dict[str, Ratio] = Field(default={})
    """By baseline and batch size, such as `TorchEager fp32, batch 1`."""
    gate: AccuracyResult | None = None
    accuracy: AccuracyResult | None = None
    load: LoadPoint | None = None
    operators: tuple[OperatorShare, ...] = ()
    """Of the baselines and the chosen one."""


class ControlReport(Frozen):
    """A control, and whether it lets anything be decided."""

    name: str
    batch_size: int
    ratio: Ratio
    passed: bool


class Report(Frozen):
    """`report.json`."""

    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    kind: Literal["OptimizationReport"] = "OptimizationReport"
    model: str
    source_digest: str
    source_size_bytes: int
    parameters: int
    profile: str
    profile_spec: OptimizationProfileSpec
    data_digest: str
    synthetic_data: bool
    samples: dict[str, int]
    """By split."""
    verdict: SearchVerdict
    summary: str
    """A sentence for people, with the figures."""
    chosen: str | None = None
    """Recipe key."""
    candidates: tuple[CandidateReport, ...]
    """Baselines first, then in order of the objective."""
    controls: tuple[ControlReport, ...]
    judgements: tuple[Judgement, ...] = ()
    """By what accuracy was judged, chosen before the first candidate was built."""
    accuracy_controls: tuple[AccuracyControl, ...] = ()
    """What was ruined on purpose, and whether that showed."""
    capacity: Capacity | None = None
    hardware: Hardware
    library_versions: dict[str, str]
    command: str
    """Reproduces it."""
    started_at: str
    """RFC 3339 in UTC."""
    seconds: float
    budget_seconds: float
    warnings: tuple[str, ...] = ()
    """What limits what can be said: too few samples, synthetic data, no validation split."""

    def candidate(self, key: str | None) -> CandidateReport | None:
        """The candidate of a recipe key."""
        return next((each for each in self.candidates if each.recipe.key == key), None)
