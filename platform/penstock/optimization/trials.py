"""The ledger of a search: what was tried and what came out. The search is a function of it, and of nothing else."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from penstock.models import Frozen
from penstock.optimization.measurements import AccuracyControl, AccuracyResult, Judgement, LoadPoint, Timing
from penstock.optimization.recipes import Recipe
from penstock.optimization.variants import Built
from penstock.serving.manifest import BatchPoint


class Stage(StrEnum):
    """Stages of a search, in order."""

    PREPARE = "Prepare"
    FEASIBILITY = "Feasibility"
    BUILD = "Build"
    GATE = "Gate"
    """Cheap accuracy check on a small subset."""
    MEASURE = "Measure"
    """Successive halving on interleaved latency."""
    CERTIFY = "Certify"
    """Full paired accuracy test."""
    LOAD = "Load"
    """Load test of the finalists."""
    PUBLISH = "Publish"


class BuildTrial(Frozen):
    """A recipe was built, or could not be."""

    type: Literal["build"] = "build"
    recipe: Recipe
    built: Built
    seconds: float


class JudgeTrial(Frozen):
    """By what candidates are judged, and whether that can tell right from wrong: looked at on the baseline alone."""

    type: Literal["judge"] = "judge"
    judgements: tuple[Judgement, ...] = ()
    controls: tuple[AccuracyControl, ...] = ()
    problem: str | None = None
    """Why nothing can be judged."""
    seconds: float


class GateTrial(Frozen):
    """The cheap accuracy gate, or the full test, of one candidate."""

    type: Literal["accuracy"] = "accuracy"
    stage: Literal[Stage.GATE, Stage.CERTIFY]
    recipe_key: str
    result: AccuracyResult | None
    """None: it could not be run."""
    problem: str | None = None
    seconds: float


class SessionTrial(Frozen):
    """One session of interleaved measurements: a rung of the halving."""

    type: Literal["session"] = "session"
    rung: Annotated[int, Field(ge=0)]
    attempt: Annotated[int, Field(ge=0)] = 0
    """A session whose controls failed is run again, longer."""
    batch_size: Annotated[int, Field(ge=1)]
    timings: tuple[Timing, ...]
    problems: dict[str, str] = Field(default={})
    """By recipe key: what did not run, and why."""
    seconds: float


class LoadTrial(Frozen):
    """The load test of one finalist."""

    type: Literal["load"] = "load"
    recipe_key: str
    load: LoadPoint | None
    curve: tuple[BatchPoint, ...] = ()
    problem: str | None = None
    seconds: float


Trial = Annotated[BuildTrial | JudgeTrial | GateTrial | SessionTrial | LoadTrial, Field(discriminator="type")]
TRIAL: TypeAdapter[BuildTrial | JudgeTrial | GateTrial | SessionTrial | LoadTrial] = TypeAdapter(Trial)
