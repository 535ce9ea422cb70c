"""What every front hands its requests to: the cache, the batcher and the engine of the one model, and what is told of them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from typing import Final

from penstock.errors import Invalid, PenstockError
from penstock.protocol.datatypes import Array
from penstock.protocol.limits import SHADOW_PRIORITY
from penstock.protocol.refusals import Deferred, QueueFull, Refusal, TooLate
from penstock.routing.leases import MOST_CHARACTERS, ReplicaRoom, ReplicaStats, RequestsJoined
from penstock.routing.outcomes import Orders, ReplicaOutcomes
from penstock.routing.shadowing import Shown
from penstock.serving.control import Reconfigure, ReplicaSettings
from penstock.serving.settings import InPlaceSettings
from penstock_runtime.batching.batcher import Rejected
from penstock_runtime.batching.ticket import Ticket
from penstock_runtime.spans import SpanSink
from penstock_serving.replica.cache.answering import CachedAnswers
from penstock_serving.replica.cache.cache import PredictionCache
from penstock_serving.replica.cache.keys import InputKeys
from penstock_serving.replica.call import Call, defect
from penstock_serving.replica.codec.requests import InferRequest
from penstock_serving.replica.execution.executor import Executor
from penstock_serving.replica.execution.joint import BatchRun
from penstock_serving.replica.model.loading import LoadedModel
from penstock_serving.replica.shadow.allowance import ShownAllowance
from penstock_serving.replica.shadow.shadowing import Shadowing
from penstock_serving.replica.telemetry.load import LoadMeter
from penstock_serving.replica.telemetry.metrics import ReplicaMetrics
from penstock_serving.replica.telemetry.outcomes import OutcomeMeter
from penstock_serving.replica.telemetry.statistics import RequestStatistics, write_statistics
from penstock_serving.replica.telemetry.tracing import Tracer

logger = logging.getLogger(__name__)

_MOST_SHOWN: Final = 8
_QUIET_SECONDS: Final = 1.0
"""Without a client's request for so long, the engine is left to what is shown for the most part."""
"""Requests that other replicas show may be in flight here: they take room in batches."""
_SENT: Final = 0.9
"""Of what a replica has room for, gateways may send so much. A place too many is taken anew as soon as its request is refused, a
thousand times a second, and takes the time of those that are answered (`make bench ARGS=overload`). A full replica is demand enough."""


class InferenceService:
    """Answers calls of any front. All methods are called on the event loop."""

    def __init__(self, settings: ReplicaSettings, model: LoadedModel, sink: SpanSink) -> None:
        self._trial = model.trial
        self._told_room: ReplicaRoom | None = None
        self._load = LoadMeter(settings.lease_seconds, time.monotonic())
        self._shown = LoadMeter(settings.lease_seconds, time.monotonic())
        """Of what other replicas show: no demand, and no client's wait."""
        self._allowance = ShownAllowance(time.monotonic())
        self.shadow: Shadowing | None = None
        """Shows samples of what was answered to other replicas, while that is ordered."""
        # A replica serves one namespace, and only what is within one may be shared. No header of a client's is asked.
        keys = InputKeys(model.digest, settings.namespace, model.signature)
        self._cache: PredictionCache[Call] = PredictionCache(keys, settings.cache)
        self._cached = CachedAnswers(self._cache, self._run, self._answer_without_run, self._expire_in_flight)
        self.metrics = ReplicaMetrics(settings.namespace, settings.model, settings.version, self._load, self._cache)
        self._tracer = Tracer(settings, sink)
        self.executor = Executor(
            model.engine,
            model.trial,
            settings.batching,
            on_ran=self._finish_batch,
            on_expired=self._expire,
            on_shed=self._shed,
            on_given_up=self._give_up,
            objective_seconds=_objective(settings),
            runs=model.parallel.runs,
        )
        self._parallel = model.parallel
        self.metrics.joined = model.trial.joining is not None
        self._sums = RequestStatistics()
        self._outcomes = OutcomeMeter(time.monotonic())
        self.ready = True
        self.answered = asyncio.Event()
        """Set once a first batch has been answered."""

    # What a front calls.

    def refuse_early(self, call: Call) -> Deferred | None:
        """Why a request would be refused of which only the caller is known; None: it is not, as far as that tells.

        One that the cache may answer needs no room, so there nothing is refused before it was read.
        """
        if self._cache.enabled:
            return None
        rejected = self.executor.batcher.refuse_early(time.monotonic(), call.flow)
        if rejected is None:
            return None
        self._meter(call).refuse(arrived=False)
        return _deferral(rejected)

    def infer(self, call: Call, request: InferRequest, *, lone: bool = False) -> None:
        """A request has been decoded: answer it from the cache, or queue it.

        Args:
            call: the request.
            request: what it asks for.
            lone: nothing else can have come at the same time.
        """
        call.request = request
        call.decoded_ns = time.monotonic_ns()
        if call.shown is not None:
            self._run_shown(call, request)
        elif not (self._cache.enabled and self._cached.take(call, request, _deadline(call, request))):
            self._run(call, request, call.decoded_ns / 1e9, lone=lone)

    def fail(self, call: Call, error: PenstockError) -> None:
        """Refuse a request: a front's that cannot be read, or one that cannot be answered."""
        call.reason = error.reason
        if call.shown is None:
            self._tracer.decide(call, call.encoded_ns or time.monotonic_ns())
        call.refuse(error)
        self._count(call)
        if call.shown is not None:
            return
        self._sums.failed_ns += call.written_ns - call.received_ns
        if call.execute_start_ns == 0:
            self._tracer.export(call)

    def cancel(self, call: Call) -> None:
        """Take the request of a client that has gone out of the queue. One that is executing ends with its batch."""
        unwanted = self._cached.leave(call)
        if unwanted is not None and unwanted.ticket is not None and self.executor.cancel(unwanted.ticket):
            unwanted.flight = None
            self._meter(unwanted).leave(time.monotonic())

    # What the process calls.

    def reconfigure(self, settings: Reconfigure) -> None:
        """Take other settings without dropping a request."""
        self.executor.batcher.reconfigure(settings.batching, _objective(settings))
        self._cache.reconfigure(settings.cache, time.monotonic())
        self._tracer.set_slo(settings.slo_milliseconds)

    def begin(self) -> None:
        """From now on requests can come."""
        self._outcomes.begin(time.monotonic())

    def obey(self, orders: Orders | None) -> None:
        """Do what gateways order now, and nothing else of what they ordered before; None: nothing."""
        if self.shadow is not None:
            self.shadow.obey(orders.shadow if orders is not None else None)

    def outcomes(self) -> ReplicaOutcomes:
        """What became of the requests so far."""
        now = time.monotonic()
        calls = list(self.executor.calls())
        came = (call.received_ns / 1e9 for call in calls if call.shown is None)
        shown_came = (call.received_ns / 1e9 for call in calls if call.shown in (Shown.SAMPLED, Shown.REPLAYED))
        shadow = self.shadow.outcomes() if self.shadow is not None else None
        return self._outcomes.tell(now, came, shadow, shown_came)

    def stats(self) -> ReplicaStats:
        """What the replica saw lately."""
        batcher = self.executor.batcher
        stats = self._load.stats(time.monotonic(), batcher.queued)
        return stats.model_copy(update={"capacity": batcher.requests_per_second})

    def room(self, gateways: int) -> ReplicaRoom | None:
        """How much each of so many gateways may send at once; None: all, since the cache may answer more than the engine can."""
        batcher = self.executor.batcher
        if self._cache.enabled or not batcher.curve.points:
            self._load.limit = self._told_room = None
            return None
        # Two full batches for each: who has few clients elsewhere must not leave the engine idle. The replica itself bounds the sum.
        share = max(math.ceil(_SENT * batcher.capacity / max(gateways, 1)), 2 * batcher.sizing.rows)
        seconds = math.ceil(batcher.admission.run_seconds * batcher.admission.margin)
        room = ReplicaRoom(requests=min(share, 1_000_000), retry_after_seconds=min(max(seconds, 1), 3600))
        self._told_room = room.following(self._told_room)  # as gateways take it
        self._load.limit = self._told_room.requests * max(gateways, 1)
        return room

    def statistics(self, name: str, version: str) -> bytes:
        """Triton's statistics, and what explains batches and refusals."""
        metrics = self.metrics
        histograms = (metrics.request_seconds, self._load.waits)
        runs = (self.executor.batcher, self._parallel)
        return write_statistics((name, version), self._sums, metrics.requests, histograms, runs)

    def metrics_text(self) -> bytes:
        """The Prometheus exposition."""
        return self.metrics.text(self.executor.batcher.queued)

    @property
    def exports_traces(self) -> bool:
        """Whether spans go anywhere."""
        return self._tracer.exports

    @property
    def joining(self) -> RequestsJoined:
        """Whether requests are joined into one run, and why not."""
        apart = self.executor.apart
        if apart is not None:
            return RequestsJoined(joined=False, reason=f"ended while serving: {apart}"[:MOST_CHARACTERS])
        return RequestsJoined(joined=self._trial.joining is not None, reason=self._trial.reason[:MOST_CHARACTERS])

    @property
    def in_flight(self) -> int:
        """Infer requests that are not answered yet."""
        return self._load.in_flight + self._cache.waiting

    def tick(self, now: float) -> None:
        """Called about once a second. `now` is the monotonic clock in seconds."""
        self._load.tick(now)
        self._outcomes.tick(now)
        self._tracer.synchronize()

    # Runs.

    @property
    def _arrivals(self) -> int:
        """Requests that have come, clients' and others."""
        return self._load.arrivals + self._shown.arrivals

    def _cpu_of(self, call: Call) -> float | None:
        """The process's CPU time while a request was in it alone; None: it was not."""
        if call.alone is None or call.alone[0] != self._arrivals:
            return None
        return time.process_time() - call.alone[1]

    def _meter(self, call: Call) -> LoadMeter:
        return self._load if call.shown is None else self._shown

    def _run_shown(self, call: Call, request: InferRequest) -> None:
        """Run what another replica shows behind all clients' requests, and never from the cache: it is the model that is compared."""
        now = call.decoded_ns / 1e9
        quiet = self._load.idle_seconds(now) >= _QUIET_SECONDS
        if self._shown.in_flight >= _MOST_SHOWN or not self._allowance.admits(now, quiet=quiet):
            self.fail(call, QueueFull(1))
            return
        if not self._load.in_flight and not self._shown.in_flight:
            call.alone = self._arrivals + 1, time.process_time()
        request.priority = SHADOW_PRIORITY
        self._run(call, request, now)

    def _run(self, call: Call, request: InferRequest, now: float, *, lone: bool = False) -> None:
        ticket = Ticket(
            call, max(request.rows, 1), request.bucket, request.priority, _deadline(call, request), call.flow
        )
        call.ticket = ticket
        self._meter(call).arrive(now)
        rejected = self.executor.submit(ticket, now, lone=lone)
        if rejected is not None:
            self._defer(call, _deferral(rejected), now)

    def _finish_batch(self, ran: BatchRun) -> None:
        metrics = self.metrics
        self._sums.observe_run(ran.rows, len(ran.members), ran.start_ns, ran.end_ns)
        metrics.batch_rows.observe(ran.rows)
        metrics.execute_seconds.observe((ran.end_ns - ran.start_ns) / 1e9)
        if ran.apart is not None:
            self.metrics.joined = False
            # What earlier joint runs gave may be wrong, too.
            self._cache.forget(time.monotonic())
        if self._cache.enabled:
            self._cache.observe_run(len(ran.members), (ran.end_ns - ran.start_ns) / 1e9)
        members: list[Call] = []
        for ticket, result in zip(ran.members, ran.results, strict=True):
            call = ticket.payload
            members.append(call)
            call.execute_start_ns = ran.start_ns
            call.execute_end_ns = ran.end_ns
            meter = self._load if call.shown is None else self._shown
            meter.waits.observe((ran.start_ns - call.decoded_ns) / 1e9)
            if isinstance(result, Invalid):
                self.fail(call, result)
            else:
                self._answer(call, result)
            meter.leave(call.written_ns / 1e9)
            if call.shown is not None:
                self._allowance.spend((ran.end_ns - ran.start_ns) / 1e9 / len(ran.members))
            if call.flight is not None:
                self._cached.land(call, result)
        self._sums.decode_ns += sum(call.decoded_ns - call.received_ns for call in members)
        self._sums.encode_ns += sum(max(call.encoded_ns - ran.end_ns, 0) for call in members)
        self._tracer.export_batch(members, ran.rows)
        if not self.answered.is_set() and any(call.shown is None for call in members):
            self.answered.set()
        if self.shadow is not None and self.shadow.draws:
            self.shadow.offer(ran)

    def _defer(self, call: Call, error: Deferred, now: float) -> None:
        """There is no room for a request, and so none for those that wait for its answer."""
        call.ticket = None
        meter = self._meter(call)
        meter.leave(now)
        meter.refuse(arrived=True)
        for refused in (call, *self._cached.drop(call)):
            self.fail(refused, error)

    def _shed(self, call: Call) -> None:
        admission = self.executor.batcher.admission
        late = TooLate(admission.allowance, max(math.ceil(admission.run_seconds), 1))
        self._defer(call, late, time.monotonic())

    def _expire(self, call: Call) -> None:
        self._meter(call).leave(time.monotonic())
        self._fail_expired(call)
        self._cached.abandon(call)

    def _give_up(self, call: Call) -> None:
        """The batcher has lost a request by a defect."""
        now = time.monotonic()
        call.ticket = None
        self._meter(call).leave(now)
        for lost in (call, *self._cached.drop(call)):
            self.fail(lost, defect())

    def _fail_expired(self, call: Call) -> None:
        timeout = call.request.timeout_seconds if call.request is not None else 0
        told = f"{timeout:.6f}".rstrip("0").rstrip(".")
        self.fail(call, Invalid(Refusal.EXPIRED, f"the request waited for longer than its timeout of {told} s"))

    # What the cache calls.

    def _expire_in_flight(self, call: Call) -> None:
        self.cancel(call)
        self._fail_expired(call)

    def _answer_without_run(self, call: Call, result: Mapping[str, Array] | Invalid) -> None:
        if isinstance(result, Invalid):
            self.fail(call, result)
        else:
            self._answer(call, result)
            if call.encoded_ns:
                self._tracer.export(call)
        self._load.touch(call.written_ns / 1e9)

    # Answers.

    def _answer(self, call: Call, outputs: Mapping[str, Array]) -> None:
        try:
            call.encode(outputs if call.request is None else call.request.present(outputs))
        except Invalid as error:
            self.fail(call, error)
            return
        except Exception:
            logger.exception("an answer could not be written, by a defect of the replica")
            self.fail(call, defect())
            return
        call.encoded_ns = now = time.monotonic_ns()
        if call.shown is None:
            self._tracer.decide(call, now)
        call.send()
        self._count(call)

    def _count(self, call: Call) -> None:
        now = call.written_ns = time.monotonic_ns()
        seconds = (now - call.received_ns) / 1e9
        if call.shown is None:
            self.metrics.requests[call.reason] += 1
            self.metrics.request_seconds.observe(seconds)
            self._outcomes.count(call.reason, seconds)
        elif call.shown is Shown.ASKED:
            self._outcomes.count_asked()
        else:
            again = call.shown is Shown.REPLAYED
            self._outcomes.count_shown(call.reason, seconds, self._cpu_of(call), again=again)
        # The ticket holds the call: without this, only the cycle collector could free the two.
        call.ticket = None


def _objective(settings: InPlaceSettings) -> float | None:
    """Seconds within which requests are to be answered."""
    return settings.slo_milliseconds / 1000 if settings.slo_milliseconds else None


def _deferral(rejected: Rejected) -> Deferred:
    seconds = max(math.ceil(rejected.retry_after_seconds), 1)
    return QueueFull(seconds) if rejected.expected_seconds is None else TooLate(rejected.due_seconds, seconds)


def _deadline(call: Call, request: InferRequest) -> float | None:
    """Until when a request may wait for its run, in seconds of the monotonic clock."""
    if request.timeout_seconds is None:
        return None
    return call.received_ns / 1e9 + request.timeout_seconds
