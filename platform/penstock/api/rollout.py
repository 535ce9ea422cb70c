"""How a deployment's new revision takes over: `spec.rollout`, and what its status tells of one that is under way."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from penstock.api.meta import AUTO, Described, IntOrString
from penstock.routing.outcomes import Losses


class RolloutType(StrEnum):
    """How a new revision takes over."""

    CANARY = "Canary"
    """It is shown samples of the traffic, then gets shares of it, and takes over once it is proved to be no worse."""
    SHADOW = "Shadow"
    """It is shown samples of the traffic, and takes over at once when its answers are proved to be as good. No client gets one before."""
    BLUE_GREEN = "BlueGreen"
    """It starts in full beside the other, gets all requests at once, and the other stays in full until it is proved."""
    IMMEDIATE = "Immediate"
    """It gets all requests as soon as it answers, and is not judged."""


class OnFailure(StrEnum):
    """What follows when a revision is found to be worse."""

    ROLLBACK = "Rollback"
    HOLD = "Hold"


class OnInconclusive(StrEnum):
    """What follows when neither is shown by the deadline."""

    HOLD = "Hold"
    ROLLBACK = "Rollback"


class WithoutRoom(StrEnum):
    """What happens where the pool has no room for a revision beside the other."""

    WAIT = "Wait"
    IN_PLACE = "InPlace"
    """The new one takes over without being judged, replica by replica, as `Immediate` does."""


class RolloutAnalysis(Described):
    """By what a new revision is judged, against replicas of the present one that are as young.

    What is not measured is never taken for good.
    """

    output_parity: IntOrString = AUTO
    """The least share of agreement that its answers must be proved to have with the present revision's, beyond what two copies of
    that one agree, from `"0"` (answers are not compared) to below `"1"`. Auto: `"0.99"` for a model that an optimization made and
    wherever `type` is `Shadow`, else `"0"`, since the answers of another model of yours may be meant to differ."""
    loss: Losses = Losses.AUTO
    """How answers are compared. Auto: by what the profile's `constraints.accuracy.metric` looks at, where the deployment names a
    profile that names one and there is such a loss; else by the outputs."""
    shadow_ratio: IntOrString = "1"
    """Share of the requests whose inputs are shown to it, too, above `"0"` and up to `"1"`; at most 20 a second of each replica,
    and no more than a fiftieth of a core's time."""
    max_error_increase: IntOrString = "0.01"
    """By how much the share of failed requests may be greater: `"0.01"` lets 1 in 100 more fail. Above `"0"`, up to `"1"`.
    Harm counts from a tenth of it: what lies between may be rolled back or take over."""
    max_slow_increase: IntOrString = "0.05"
    """By how much the share of answers may be greater that take longer than 99 of 100 of the present revision's do meanwhile.
    Above `"0"`, up to `"1"`."""
    max_cpu_increase: IntOrString = "0.5"
    """By what part of the present revision's an answer may cost more CPU time: `"0.5"` is half as much again, `"2"` three times
    as much. Above `"0"`."""
    max_memory_increase: IntOrString = "0.5"
    """By what part of the present revision's its memory may be larger, in the same way."""
    alpha: IntOrString = "0.001"
    """The greatest probability with which a revision that is no worse is rolled back, however long it is watched. Above `"0"`, up
    to `"0.5"`."""
    beta: IntOrString = "0.05"
    """The greatest probability with which one that is worse by more than is allowed takes over. Above `"0"`, up to `"0.5"`."""
    warm_up_seconds: Annotated[int, Field(ge=0, le=3600)] = 10
    """What a replica does at first is not judged."""


class RolloutSpec(Described):
    """How a new revision takes over."""

    type: RolloutType | None = None
    """Left out: `Canary` for what an optimization made, and `Immediate` for another change of yours. Where clients send too few
    requests to prove it, what it and the present revision are shown does, within minutes: samples, and made inputs."""
    steps: Annotated[tuple[Annotated[int, Field(ge=1, le=100)], ...], Field(min_length=1, max_length=10)] = (
        1,
        5,
        25,
        50,
    )
    """Shares of the requests in percent, one after another and rising, for `Canary`. After the last it gets all."""
    step_seconds: Annotated[int, Field(ge=1, le=86_400)] = 30
    """The least time of each step."""
    analysis: RolloutAnalysis = RolloutAnalysis()
    deadline_seconds: Annotated[int, Field(ge=10, le=604_800)] = 3600
    """By then it must be proved to be no worse; what holds else, `onInconclusive` says. For `Canary` more than `warmUpSeconds` and
    `stepSeconds` for each of `steps` together."""
    on_failure: OnFailure = OnFailure.ROLLBACK
    """When it is found to be worse. `Hold`: it keeps its share, for you to look at."""
    on_inconclusive: OnInconclusive = OnInconclusive.HOLD
    """When neither is shown by the deadline. `Hold`: it keeps its share until it is, or until you say."""
    without_room: WithoutRoom = WithoutRoom.WAIT
    """Where the pool has no room for both. `InPlace` leaves the last replica until another answers, which needs room for one; an
    `Immediate` change waits for room in any case."""
    paused: bool = False
    """It goes no further, and evidence goes on being gathered."""
    sticky: bool = False
    """Each caller's requests go to one revision, as far as callers can be told apart."""
    keep_seconds: Annotated[int, Field(ge=0, le=604_800)] = 3600
    """How long the former revision stays, at its least size, after another took over, so that a regression that shows late is
    reverted. 0: it goes at once."""
    keep_payloads: bool = False
    """Whether numbers of answers that differ may be shown in the status and on the rollout's page."""


class RolloutPhase(StrEnum):
    """Where a rollout is."""

    STARTING = "Starting"
    """Its replicas start."""
    SHADOWING = "Shadowing"
    """It is shown samples, and no client gets its answers."""
    STEPPING = "Stepping"
    """It gets a share of the requests."""
    HELD = "Held"
    """It stays where it is until it is told, or until evidence comes: `message` says why."""
    WATCHING = "Watching"
    """It has taken over, and the former revision stays in case that it turns out to be worse."""
    PROMOTED = "Promoted"
    """It has taken over for good."""
    ROLLED_BACK = "RolledBack"
    """It gets no request, and is not tried again until it is told to be, or the spec changes."""

    @property
    def ended(self) -> bool:
        """Whether nothing follows but another rollout."""
        return self in (RolloutPhase.PROMOTED, RolloutPhase.ROLLED_BACK)


class BaselineKind(StrEnum):
    """With what a new revision's replicas are compared."""

    YOUNG = "Young"
    """With replicas of the present revision that started for it."""
    FLEET = "Fleet"
    """With all of the present revision's, since there was no room for others."""


class ProofSource(StrEnum):
    """By what a metric was proved."""

    LIVE = "LiveTraffic"
    """By clients' requests that the new revision got, or its answers to inputs that they sent."""
    SHOWN = "ShownRequests"
    """By requests that it and the present revision were shown, one after the other: clients' requests are too few."""
    MADE = "MadeInputs"
    """By answers to inputs that no client sent, made from the model's signature or supplied as samples: clients' requests are too few."""


class MetricEvidence(Described):
    """What is known of one metric. Evidence is the logarithm, to base 10, of an e-value: 3 stands for odds of 1000."""

    name: Annotated[str, Field(max_length=32)]
    """`errors`, `latency`, `parity`, `cpu`, `memory` or `shares`."""
    candidate: Annotated[str, Field(max_length=32)] = ""
    """What was seen of the new revision, with its unit."""
    baseline: Annotated[str, Field(max_length=32)] = ""
    """The same of what it is compared with."""
    samples: int = 0
    """Of the new revision."""
    harm: Annotated[str, Field(max_length=16)] = "0"
    """Evidence that it is worse. All metrics' e-values are averaged, and `harmBound` is what they are held against."""
    proof: Annotated[str, Field(max_length=16)] = "0"
    """Evidence that it is not worse by more than is allowed."""
    proved: bool = False
    """Whether that was enough at some time."""
    proved_by: ProofSource | None = None
    """Of what depends on requests, by which ones it was proved."""


class RolloutSample(Described):
    """A sample of which the new revision's answer differed, beyond what two copies of the present one do."""

    at: str
    """When, RFC 3339."""
    loss: Annotated[str, Field(max_length=16)]
    """Of its answer, in [0, 1]."""
    twin_loss: Annotated[str, Field(max_length=16)] = "0"
    """Of a second answer of the present revision."""
    output: Annotated[str, Field(max_length=253)] = ""
    """The output that differed most."""
    told: Annotated[str, Field(max_length=500)] = ""
    """How, in a sentence; with numbers of the answers only where `keepPayloads` allows it."""


class RolloutPoint(Described):
    """Where a rollout was at a moment. Those of one rollout are thinned as it goes on, so that they span all of it."""

    after: Annotated[int, Field(ge=0)]
    """Seconds since `startedAt`."""
    phase: RolloutPhase
    """Where it was."""
    weight: int = 0
    """Percent of the requests that the candidate got."""
    harm: Annotated[str, Field(max_length=16)] = "0"
    """Evidence of all metrics together that it is worse."""
    proof: Annotated[dict[str, Annotated[str, Field(max_length=16)]], Field(max_length=8)] = Field(default_factory=dict)
    """Evidence that it is not worse by more than is allowed, by metric."""


class RolloutStatus(Described):
    """A rollout that is under way, or the last one."""

    type: RolloutType
    """How the new revision takes over."""
    phase: RolloutPhase
    """Where it is."""
    candidate: Annotated[str, Field(max_length=32)]
    """The revision that is judged."""
    stable: Annotated[str, Field(max_length=32)]
    """The revision that was there before."""
    step: int = 0
    """Of `steps`, from 0."""
    weight: int = 0
    """Percent of the requests that the candidate gets."""
    started_at: str = ""
    """When it began, RFC 3339."""
    phase_at: str = ""
    """Since when it is in this phase and step."""
    deadline: str = ""
    """By when it is to be proved."""
    baseline: BaselineKind | None = None
    """With which replicas it is compared."""
    replicas: int = 0
    """Of the candidate while it is judged; the baseline has as many."""
    output_parity: Annotated[str, Field(max_length=16)] = ""
    """What `analysis.outputParity` comes to for this rollout, such as `0.99`; `0`: answers are not judged."""
    loss: Losses | None = None
    """By what answers are compared: what `analysis.loss` comes to, where the spec names none and the profile's metric does."""
    reason: Annotated[str, Field(max_length=64)] = ""
    """Why it is held or was rolled back, as a constant in CamelCase."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Where it stands and what it waits for, in a sentence or two."""
    harm: Annotated[str, Field(max_length=16)] = "0"
    """Evidence of all metrics together that the candidate is worse: the logarithm of their e-values' mean."""
    harm_bound: Annotated[str, Field(max_length=16)] = ""
    """The evidence at which harm counts as shown."""
    proof_bound: Annotated[str, Field(max_length=16)] = ""
    """The evidence at which each metric counts as proved."""
    metrics: Annotated[tuple[MetricEvidence, ...], Field(max_length=8)] = ()
    """What is known of each."""
    history: Annotated[tuple[RolloutPoint, ...], Field(max_length=48)] = ()
    """How it came here, for its page."""
    worst: Annotated[tuple[RolloutSample, ...], Field(max_length=5)] = ()
    """Samples whose answers differed most."""
    replayed: bool = False
    """Whether inputs were shown that no client ever sent, since there was little traffic."""
    shown: Annotated[str, Field(max_length=256)] = ""
    """On how many requests that both were shown answers were compared, and where these came from."""
    speedup: Annotated[str, Field(max_length=32)] | None = None
    """On live traffic: by how much its answers came sooner in the middle, such as `1.80x`."""
    speedup_shown: Annotated[str, Field(max_length=32)] | None = None
    """The same on what both were shown, one request at a time."""
    obeyed: Annotated[str, Field(max_length=128)] = ""
    """The last command of `penstock.dev/rollout` that was carried out."""
    evidence: Annotated[str, Field(max_length=32_768)] = ""
    """What judging goes on from, after a restart. Not for people."""
    notes: Annotated[str, Field(max_length=24_576)] = ""
    """Who was there at the last look, and what had been counted, for the guards. Not for people."""


def evidence_of(text: str) -> float:
    """A figure of the status: the logarithm, to base 10, of an e-value, or a bound; 0 for what is none."""
    try:
        return float(text)
    except ValueError:
        return 0.0
