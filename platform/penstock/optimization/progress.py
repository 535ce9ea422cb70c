"""How a search runs elsewhere and is followed: `python -m penstock_optimizer` in a Job, a subprocess, or the CLI's own.

It reads one JSON line of `OptimizationRequest` from its standard input, or from the file given as its argument, and
writes `Progress` lines to its standard output. Where the request names a run folder, it also keeps `progress.json`
there, and at the end `result.json`, both in the artifact store and signed (`penstock.optimization.statements`). Exit status: 0 once a verdict is
reached, whichever; 1 where it could not be; 75 (EX_TEMPFAIL) where trying again may help.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from penstock.api.optimization import OptimizationProfileSpec
from penstock.models import Frozen
from penstock.optimization.report import SearchVerdict
from penstock.optimization.trials import Stage
from penstock.optimization.variants import SourceRequest
from penstock.serving.manifest import Capacity, ModelFormat

SIGNING_KEY_VARIABLE = "PENSTOCK_SIGNING_KEY"
"""Holds a pod's private key in PEM. The driver takes it out of its environment before it starts any other process."""
PROGRESS_FILE = "progress.json"
RESULT_FILE = "result.json"


class RunIdentity(Frozen):
    """Which Job of the control plane a search is."""

    namespace: str
    run: str
    """uid of the `OptimizationRun`: another one of the same name has another."""
    job: str
    """Name of the Job, which says which attempt it is."""


class OptimizationRequest(Frozen):
    """All that one search needs to know."""

    model: SourceRequest
    model_uri: str | None = None
    """Where to fetch the model from, as `storageUri`; None: `model.path` is local."""
    model_version: Annotated[str, Field(exclude_if=lambda version: version == "1")] = "1"
    """Of a folder with versions below it."""
    model_digest: Annotated[str | None, Field(exclude_if=lambda digest: digest is None)] = None
    """`sha256:` and 64 hex digits; a model with another digest is not optimized."""
    name: str
    """Of the model."""
    profile: str
    """Kind and name, such as `ClusterOptimizationProfile/balanced`."""
    spec: OptimizationProfileSpec
    data_uri: str | None = None
    """Overrides the profile's."""
    credentials: str | None = None
    """Secret of the namespace whose keys the process that fetches the model gets; None: the Job's own environment."""
    store: str
    """fsspec URI of the artifact store."""
    run_folder: str | None = None
    """fsspec URI of a folder for `progress.json` and `result.json`."""
    identity: RunIdentity | None = None
    """What those are signed for, and the artifact; None: this is no run of the control plane."""
    scoped_store: bool = False
    """Whether credentials that open more than `store` are refused: its parent is other namespaces' too."""
    workspace: str
    """Local folder that keeps ledgers and built variants between runs; a second run with the same key is free."""
    signing_key: str
    """File with the private key in PEM (ECDSA P-256); empty: the variable `SIGNING_KEY_VARIABLE` holds it."""
    latency_bound_milliseconds: float | None = None
    """The deployment's p99 objective; the load test's bound. The profile's own constraint goes first."""
    memory_bytes: int | None = None
    """What a replica is given."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Of one replica."""
    budget_seconds: float | None = None
    """Overrides the profile's."""
    seed: int = 0
    sandbox: bool = True
    """Whether import paths and converters run without network and with an environment of their own. False only where
    the whole process already is in one."""
    command: str = ""
    """What the user typed, for the report."""


class Progress(Frozen):
    """Where a search stands."""

    stage: Stage
    message: str
    done: int = 0
    total: int = 0
    """Trials of this stage."""
    elapsed_seconds: float = 0.0
    budget_seconds: float = 0.0
    best: str | None = None
    """Label of the best candidate so far."""
    best_speedup: float | None = None
    found: str = ""
    """What was found so far, in a sentence; empty where that is nothing yet."""


class Figures(Frozen):
    """Before and after, as the status of an `OptimizationRun` shows them. The reference is the first baseline."""

    baseline: str
    """Such as `TorchEager fp32`."""
    speedups: dict[str, float] = Field(default={})
    """By baseline."""
    latency_p50_milliseconds: tuple[float, float] | None = None
    latency_p99_milliseconds: tuple[float, float] | None = None
    requests_per_second: tuple[float, float] | None = None
    size_bytes: tuple[int, int] | None = None
    memory_bytes: tuple[int, int] | None = None
    metric: str | None = None
    accuracy: tuple[float, float] | None = None
    cpu_seconds_per_request: tuple[float, float] | None = None
    """The energy that a virtual machine can vouch for."""


class RunResult(Frozen):
    """`result.json`."""

    verdict: SearchVerdict
    summary: str
    figures: Figures | None = None
    judged: tuple[str, ...] = ()
    """By what accuracy was judged and why, a sentence for each output and metric."""
    recipe: str | None = None
    """Label of the chosen recipe."""
    artifact_uri: str | None = None
    artifact_digest: str | None = None
    """`sha256:` of the artifact's `manifest.json`."""
    artifact_format: ModelFormat | None = None
    capacity: Capacity | None = None
    report_uri: str | None = None
    """Folder with `report.json` and `report.html`."""
    source_digest: str | None = None
    """Of the model that was opened."""
    model_digest: str | None = None
    """Likewise, as replicas that serve it as it is tell it."""
    hardware: str | None = None
    """Digest of the fingerprint of the machine that it was measured on."""
    reused: bool = False
    """All trials were there already."""
    trials: int = 0
    error: str | None = None
    """Why no verdict was reached; `verdict` is then NoDecision."""
