"""Traffic of simulated rollouts, many at once: what two arms' replicas would count in each block of two seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from penstock.routing.outcomes import LATENCY_SECONDS, LOSS_EDGES
from penstock_operator.rollout.evidence.arrays import Array, Mask, share
from penstock_operator.rollout.evidence.block import (
    BLOCK_SECONDS,
    LATENCY_BUCKETS,
    LOSS_BUCKETS,
    ArmCounts,
    EvidenceBlock,
    SampleCounts,
)
from penstock_operator.rollout.machine import DOUBTING_SHARE, WATCHING_SHARE
from penstock_serving.replica.shadow.supplying import ENOUGH_SAMPLES

_CENTRE = 0.010
"""Median seconds of an answer, which vary by e^±0.35; one in fifty takes four times as long."""
_SIGMA = 0.35
_TAIL = 0.02
_FIRST, _COUNT = 22, 64
"""Buckets that answers fall into."""
_MEMORY = 400e6
_PACE = 10.0
"""Pairs that are shown a second: samples of clients' requests, and where these are fewer, others beside. Replicas show twice as many
where they can."""
_ZERO = LOSS_EDGES.index(0.0)
_GRID = np.linspace(-6, 6, 2401)
_NORMAL = np.cumsum(np.exp(-(_GRID**2) / 2)) / np.exp(-(_GRID**2) / 2).sum()


@dataclass(frozen=True, slots=True)
class Trial:
    """One simulated rollout: its traffic, and in what the candidate is worse."""

    kind: str
    rate: float
    """Requests a second of the whole deployment."""
    bursty: bool
    """Callers send runs of requests that fail or are slow together, in storms; else Poisson, each for itself."""
    failing: float = 0.0
    """Added share of requests that fail."""
    slower: float = 1.0
    """Factor of all answers' times."""
    tail: float = 0.0
    """Added share of answers that take twenty times as long."""
    differing: float = 0.0
    """Share of answers that are wrong."""
    class_share: float = 1.0
    """Of the callers whose answers may be wrong: each of theirs then is with `differing / class_share`."""
    leak: float = 0.0
    """Of its memory, a second."""
    cpu: float = 1.0
    base_failing: float = 0.001
    """Share of both arms' requests that fail."""
    skew: float = 1.0
    """Factor of the candidate's share of requests."""
    made: float = 1.0
    """0: answers to made inputs are right, whatever others are."""
    begins: int = 0
    """Block from which on it is worse."""
    ends: int = 1 << 30
    """Block from which on it is as good again."""
    every: int = 1 << 30
    """Blocks after which that comes again."""
    supplied: int = 0
    """Samples that are shown before made inputs; answers to them are wrong as those to clients' are."""
    expiring: float = 0.0
    """Added share of requests whose deadline is over while they wait for a run."""
    base_expiring: float = 0.0
    """The same share of both arms'."""
    deadline: float = 0.1
    """Seconds of it."""
    unfit: float = 0.0
    """Added share of requests that the signature does not take: a client's that the candidate alone has, or after the other is gone."""
    base_unfit: float = 0.0
    """The same share of both arms'."""
    narrow: float = 0.0
    """Share of the inputs that the present revision's signature takes, and the candidate's does not."""
    apart: float = 1.0
    """0: replicas count all these as failed, as those of a former release do."""


@dataclass(frozen=True, slots=True)
class TrialArrays:
    """The same of many, each field of shape (rollouts,)."""

    rate: Array
    bursty: Array
    failing: Array
    slower: Array
    tail: Array
    differing: Array
    class_share: Array
    leak: Array
    cpu: Array
    base_failing: Array
    skew: Array
    made: Array
    begins: Array
    ends: Array
    every: Array
    supplied: Array
    expiring: Array
    base_expiring: Array
    deadline: Array
    unfit: Array
    base_unfit: Array
    narrow: Array
    apart: Array

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> TrialArrays:
        return cls(*(np.array([float(getattr(each, field.name)) for each in trials]) for field in fields(cls)))


@dataclass(slots=True)
class Weather:
    """What lasts from block to block, each of shape (rollouts,)."""

    storm: Array
    common: Array
    """Log of the factor of both arms' times now."""
    own: Array
    """The same of each arm, (2, rollouts): neighbours that come and go."""
    placed: Array
    """Of each arm, for good: no two replicas are alike."""
    leaked: Array
    fresh: Array
    """Samples that were not shown yet."""
    wrong: Array
    """The part of the samples at which the candidate is wrong."""


class Traffic:
    """Makes blocks.

    Args:
        trials: what is simulated.
        seed: of the chance in it.
        watching: the candidate has taken over: one request in a hundred is shown to the former revision, one in ten where that is
            `doubtful`, and nothing else is.
    """

    def __init__(self, trials: TrialArrays, seed: int, *, watching: bool = False) -> None:
        self.trials = trials
        self.watching = watching
        self.chance = np.random.default_rng(seed)
        count = len(trials.rate)
        self.weather = Weather(
            storm=np.zeros(count),
            common=np.zeros(count),
            own=np.zeros((2, count)),
            placed=0.02 * self.chance.standard_normal((2, count)),
            leaked=np.zeros(count),
            fresh=trials.supplied.copy(),
            wrong=np.zeros(count),
        )
        if trials.supplied.any():
            wrong = self.chance.binomial(trials.supplied.astype(int), np.clip(trials.differing, 0.0, 1.0))
            self.weather.wrong = share(wrong, trials.supplied)
        self.block = 0
        self.doubtful = np.zeros(count, bool)

    def keep(self, rows: Mask) -> None:
        """Go on with these alone."""
        self.trials = TrialArrays(*(getattr(self.trials, field.name)[rows] for field in fields(TrialArrays)))
        self.weather = Weather(*(getattr(self.weather, field.name)[..., rows] for field in fields(Weather)))

    def next_block(self, weight: Array, *, holds: Mask) -> EvidenceBlock:
        """What happened in two seconds, with that share of requests for the candidate, and as much for the baseline."""
        trials = self.trials
        self._change_weather()
        since = self.block - trials.begins
        worse = (since >= 0) & (since % trials.every < trials.ends - trials.begins)
        self.block += 1
        bursty = trials.bursty > 0
        rate = trials.rate * np.where(bursty, np.where(self.weather.storm > 0, 3.0, 0.6), 1.0)
        runs = np.where(bursty, 4.0, 1.0)
        arms = []
        for arm, added in enumerate((worse, np.zeros_like(worse))):
            skew = np.where(added, trials.skew, 1.0)
            arms.append(self._arm(arm, rate * weight * skew * BLOCK_SECONDS, runs, added))
        sent = self._sent(rate, runs, worse)
        made, fresh, again = self._fill(sent, worse)
        # Who has all requests is alone with one of those that are shown half of the time.
        alone = (0.5 if self.watching else 1.0, 1.0)
        shown = [
            self._shown(arm, sent.samples + fresh, again, added, alone[arm])
            for arm, added in enumerate((worse, np.zeros_like(worse)))
        ]
        return EvidenceBlock(
            seconds=np.full(len(rate), BLOCK_SECONDS),
            candidate=arms[0],
            baseline=arms[1],
            shown_candidate=shown[0],
            shown_baseline=shown[1],
            sent=sent,
            made=made,
            expected_share=np.where(weight > 0, 0.5, 0.0),
            share_holds=holds,
        )

    def _change_weather(self) -> None:
        chance, weather = self.chance, self.weather
        count = len(weather.storm)
        draw = chance.random(count)
        weather.storm = np.where(weather.storm > 0, (draw > 0.2) * 1.0, (draw < 0.05) * 1.0)
        bursty = self.trials.bursty > 0
        weather.common = 0.9 * weather.common + np.where(bursty, 0.1, 0.02) * chance.standard_normal(count)
        weather.own = 0.8 * weather.own + np.where(bursty, 0.02, 0.0) * chance.standard_normal((2, count))
        weather.leaked = weather.leaked + np.where(
            self.block >= self.trials.begins, self.trials.leak * BLOCK_SECONDS, 0.0
        )

    def _arm(self, arm: int, expected: Array, runs: Array, worse: Mask) -> ArmCounts:
        trials, chance = self.trials, self.chance
        callers = chance.poisson(expected / runs)
        failing = np.clip(trials.base_failing + np.where(worse, trials.failing, 0.0), 0.0, 1.0)
        unfit, expired = self._unrun(callers, worse)
        failed = chance.binomial(callers - unfit - expired, failing)
        answered = callers - unfit - expired - failed
        shift = self.weather.common + self.weather.own[arm] + self.weather.placed[arm]
        times = chance.multinomial(answered, self._times(shift, worse))
        seconds = np.zeros((len(expected), LATENCY_BUCKETS))
        seconds[:, _FIRST : _FIRST + _COUNT] = times * runs[:, None]
        requests, told = callers * runs, trials.apart > 0
        lapsed = np.zeros((len(expected), LATENCY_BUCKETS))
        lapsed[np.arange(len(expected)), np.searchsorted(LATENCY_SECONDS, trials.deadline)] = expired * runs * told
        cost = 0.005 * np.where(worse, trials.cpu, 1.0) * np.exp(0.1 * chance.standard_normal(len(expected)))
        leaked = np.where(worse, self.weather.leaked, 0.0)
        memory = _MEMORY * (1 + leaked + self.weather.placed[arm] + 0.005 * chance.standard_normal(len(expected)))
        return ArmCounts(
            answered=answered * runs,
            failed=np.where(told, failed, failed + unfit + expired) * runs,
            unfit=unfit * runs * told,
            seconds=seconds,
            expired=lapsed,
            late=np.zeros(len(expected)),
            cpu_seconds=requests * cost + 0.02,
            cpu_answers=requests,
            memory_bytes=memory,
            replicas=np.ones(len(expected)),
        )

    def _unrun(self, callers: Array, worse: Mask) -> tuple[Array, Array]:
        """Callers whose requests no signature takes, and whose deadline is over before a run."""
        trials, chance = self.trials, self.chance
        shares = (
            trials.base_unfit + np.where(worse, trials.unfit + trials.narrow, 0.0),
            trials.base_expiring + np.where(worse, trials.expiring, 0.0),
        )
        if not np.any(shares):
            return np.zeros_like(callers), np.zeros_like(callers)
        unfit = chance.binomial(callers, np.clip(shares[0], 0.0, 1.0))
        return unfit, chance.binomial(callers - unfit, np.clip(shares[1], 0.0, 1.0))

    def _times(self, shift: Array, worse: Mask) -> Array:
        """Shares of answers by bucket, (rollouts, _COUNT)."""
        trials = self.trials
        edges = np.log(np.array(LATENCY_SECONDS[_FIRST : _FIRST + _COUNT - 1]) / _CENTRE)
        factor = np.where(worse, np.log(trials.slower), 0.0)
        at = edges[None, :] - (shift + factor)[:, None]
        usual = np.interp(at / _SIGMA, _GRID, _NORMAL, 0.0, 1.0)
        tail = np.interp((at - np.log(4)) / _SIGMA, _GRID, _NORMAL, 0.0, 1.0)
        added = np.where(worse, trials.tail, 0.0)[:, None]
        slow = np.interp((at - np.log(20)) / _SIGMA, _GRID, _NORMAL, 0.0, 1.0)
        below = (1 - added) * ((1 - _TAIL) * usual + _TAIL * tail) + added * slow
        steps = np.diff(below, axis=1, prepend=0.0, append=1.0)
        return np.maximum(steps, 0.0) / np.maximum(steps, 0.0).sum(axis=1, keepdims=True)

    def _sent(self, rate: Array, runs: Array, worse: Mask) -> SampleCounts:
        """Clients' inputs whose answers were compared. Two copies differ now and then, either way alike."""
        trials, chance = self.trials, self.chance
        callers = chance.poisson(rate * BLOCK_SECONDS / runs)
        differing = np.where(worse, trials.differing, 0.0)
        of_class = chance.binomial(callers, trials.class_share)
        wrong = chance.binomial(of_class, np.clip(differing / trials.class_share, 0.0, 1.0))
        most = np.where(self.doubtful, DOUBTING_SHARE, WATCHING_SHARE) if self.watching else 1.0
        share = np.minimum(most, _PACE / np.maximum(rate, 1e-9))
        lost = chance.binomial((wrong * runs).astype(int), share)
        right = chance.binomial(((callers - wrong) * runs).astype(int), share)
        return self._compare(lost, right)

    def _fill(self, sent: SampleCounts, worse: Mask) -> tuple[SampleCounts, Array, Array]:
        """What there is room for beside samples.

        Returns:
            Answers to inputs that no client sent which are compared; how many inputs of either kind are shown for the first time; and how
            many, also of clients', once more.
        """
        trials, chance = self.trials, self.chance
        room = np.maximum(_PACE * BLOCK_SECONDS - sent.samples, 0.0).astype(int) * (not self.watching)
        made = np.where(trials.rate > 0, room - room // 2, room)
        wrong = np.where(trials.made > 0, np.where(worse, trials.differing, 0.0), 0.0)
        if not trials.supplied.any():
            lost = chance.binomial(made, np.clip(wrong, 0.0, 1.0))
            return self._compare(lost, made - lost), np.asarray(made, float), np.asarray(room - made, float)
        first = np.minimum(made, self.weather.fresh).astype(int)
        self.weather.fresh = self.weather.fresh - first
        enough, rest = trials.supplied >= ENOUGH_SAMPLES, made - first
        again = np.where(enough, chance.binomial(rest, 0.5), 0)
        others = np.where(enough, 0, rest)
        lost = chance.binomial(first + again, self.weather.wrong) + chance.binomial(others, np.clip(wrong, 0.0, 1.0))
        compared = self._compare(lost, first + again + others - lost)
        return compared, np.asarray(made - again, float), np.asarray(room - made + again, float)

    def _compare(self, lost: Array, right: Array) -> SampleCounts:
        noisy = self.chance.binomial(right, 0.004)
        better = self.chance.binomial(noisy, 0.5)
        excess = np.zeros((len(right), LOSS_BUCKETS))
        excess[:, len(LOSS_EDGES) - 1] = lost + noisy - better
        excess[:, 0] = better
        excess[:, _ZERO] = right - noisy
        zero = np.zeros(len(right))
        return SampleCounts(excess, excess[:, len(LOSS_EDGES) - 1] - excess[:, 0], zero, zero)

    def _shown(self, arm: int, fresh: Array, again: Array, worse: Mask, alone: float) -> ArmCounts:
        """What both arms were shown, one at a time, and `alone` for the share of which times are told."""
        trials, chance = self.trials, self.chance
        failing = trials.base_failing + np.where(worse, trials.failing + trials.narrow, 0.0)
        failed = chance.binomial(fresh.astype(int), np.clip(failing, 0.0, 1.0))
        timed = (fresh - failed + again).astype(int)
        if alone < 1:
            timed = chance.binomial(timed, alone)
        shift = self.weather.common + self.weather.own[arm] + self.weather.placed[arm]
        seconds = np.zeros((len(fresh), LATENCY_BUCKETS))
        seconds[:, _FIRST : _FIRST + _COUNT] = chance.multinomial(timed, self._times(shift, worse))
        cost = 0.005 * np.where(worse, trials.cpu, 1.0) * np.exp(0.1 * chance.standard_normal(len(fresh)))
        zero = np.zeros(len(fresh))
        return ArmCounts(
            answered=fresh - failed,
            failed=np.asarray(failed, float),
            unfit=zero,
            seconds=seconds,
            expired=np.zeros_like(seconds),
            late=zero,
            cpu_seconds=timed * cost,
            cpu_answers=np.asarray(timed, float),
            memory_bytes=zero,
            replicas=np.ones(len(fresh)),
        )
