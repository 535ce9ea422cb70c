"""Shows samples to a candidate and its twin, in a thread of its own, and counts what came of them.

The thread holds no lock of the replica's event loop but Python's own, and that never for long: it waits for sockets, or numpy
works without it. What it may cost, `SampleBudget` bounds.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import uvloop

from penstock.errors import Invalid, Unavailable
from penstock.protocol.datatypes import Array
from penstock.routing.outcomes import SampleSource, ShadowOrders, ShadowPeer
from penstock.routing.shadowing import Shown
from penstock.serving.manifest import Signature
from penstock_serving.replica.shadow.comparing import Difference, compare_answers
from penstock_serving.replica.shadow.counting import JudgedSample, ShadowCounts
from penstock_serving.replica.shadow.exchange import NOTHING, PeerAnswer, ShadowRequests, read_reply
from penstock_serving.replica.shadow.peers import PeerConnections
from penstock_serving.replica.shadow.replaying import Inputs, ReplayedInput, ReplayedInputs, size_of
from penstock_serving.replica.shadow.sampling import SampleBudget
from penstock_serving.replica.shadow.supplying import read_supplied

logger = logging.getLogger(__name__)

_MOST_WAITING: Final = 8
_MOST_BYTES: Final = 32 * 1024 * 1024
"""Of all inputs and answers that wait. Parts of joint answers keep the whole in memory until they are compared."""
_AT_ONCE: Final = 2
_LEAST_SECONDS: Final = 5.0
_MOST_SECONDS: Final = 60.0
_TIMES_OWN: Final = 10.0
"""How much longer than the own answer took another's may take, in its queue behind all clients."""
_ANSWER_TIMES: Final = 4
"""How much larger than the own answer another's may be, and some JSON: what is larger is another answer, and not read."""
_MORE_ANSWER_BYTES: Final = 1024 * 1024
_OWN_RESTS: Final = 4.0
"""Times what its own answer to made inputs took, the replica rests before the next, in case that a client comes after all."""
_OTHERS_REST: Final = 1.0
"""Times what the others' answers took, they rest."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Inputs to be shown, and where a client had sent them, the replica's own answer and the seconds that it took."""

    orders: ShadowOrders
    counts: ShadowCounts
    inputs: Inputs
    own: Mapping[str, Array] | None = None
    seconds: float = 0.0
    size_bytes: int = 0
    """Of all arrays, about."""
    replayed: ReplayedInput | None = None
    """What no client sends now; None: a client did."""


class ShadowThread:
    """Shows samples until it is told to stop. All methods are called on the replica's event loop.

    Args:
        requests: how they are written.
        signature: what the model gives.
        itself: this replica, which is its own twin where there is none.
        peers: makes what asks others; called in the thread.
        replayed: what is shown where no client sends anything.
        budget: told what samples cost.
    """

    def __init__(
        self,
        requests: ShadowRequests,
        signature: Signature,
        itself: ShadowPeer,
        *,
        peers: Callable[[], PeerConnections],
        replayed: ReplayedInputs,
        budget: SampleBudget,
    ) -> None:
        self._requests = requests
        self._signature = signature
        self._itself = itself
        self._make_peers = peers
        self._replayed = replayed
        self._budget = budget
        self._chance = random.Random()  # noqa: S311 -- chooses among peers
        self._waiting: deque[Sample] = deque()
        self._replay: tuple[ShadowOrders, ShadowCounts] | None = None
        self._supplied: SampleSource | None = None
        """Whose samples were read, or could not be."""
        self._sampled = 0
        """Samples since inputs were last replayed."""
        self._own_seconds = 0.0
        """That the replica took for its own answer to what is replayed."""
        self._loop = uvloop.new_event_loop()
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._cpu_seconds = 0.0
        threading.Thread(target=self._run, name="shadow", daemon=True).start()

    def follow(self, orders: ShadowOrders, counts: ShadowCounts) -> None:
        """Show no candidate but this one from now on, and replay inputs to it where that is asked for."""
        if self._replay is None or self._replay[1] is not counts:
            self._supplied = None
        self._replay = (orders, counts) if orders.replay else None

    def offer(self, sample: Sample) -> None:
        """Show a sample, or drop it where too much waits already."""
        waiting = tuple(self._waiting)
        waiting_bytes = sum(each.size_bytes for each in waiting)
        if len(waiting) >= _MOST_WAITING or waiting_bytes + sample.size_bytes > _MOST_BYTES:
            sample.counts.drop()
            return
        self._waiting.append(sample)
        self._wake(self._woken)

    def stop(self) -> None:
        """End, without waiting for it. What is under way is given up."""
        self._wake(self._stopping)

    def _wake(self, event: asyncio.Event) -> None:
        with suppress(RuntimeError):  # the thread has ended
            self._loop.call_soon_threadsafe(event.set)

    # In the thread.

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception:
            logger.exception("samples are not shown any more, by a defect of the replica")
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        peers = self._make_peers()
        tasks = [asyncio.create_task(self._take_samples(peers)) for _ in range(_AT_ONCE)]
        tasks.append(asyncio.create_task(self._take_replayed(peers)))
        await self._stopping.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        peers.keep_only(())
        await asyncio.sleep(0)

    async def _take_samples(self, peers: PeerConnections) -> None:
        while True:
            while not self._waiting:
                self._woken.clear()
                await self._woken.wait()
            sample = self._waiting.popleft()
            self._replayed.record(sample.inputs)
            self._sampled += 1
            await self._show(peers, sample)

    async def _take_replayed(self, peers: PeerConnections) -> None:
        """Show recorded and made inputs as often as samples may be, less what samples there are."""
        while True:
            began, self._own_seconds = time.monotonic(), 0.0
            sampled, self._sampled = self._sampled, 0
            replay = self._replay
            if replay is not None:
                await self._supply(replay[0].samples)
            if replay is not None and not sampled:
                await self._replay_one(peers, *replay)
            took = time.monotonic() - began - self._own_seconds
            rest = _OWN_RESTS * self._own_seconds + _OTHERS_REST * took
            await asyncio.sleep(max(rest, max(sampled, 1) / self._budget.per_second))

    async def _supply(self, source: SampleSource | None) -> None:
        """Have the samples that are named shown, too. They are read once: another part of them is for a replica that comes anew."""
        if source is None or (self._supplied is not None and self._supplied.uri == source.uri):
            return
        self._supplied = source
        try:
            samples = await asyncio.to_thread(read_supplied, source, self._signature)
        except (Invalid, Unavailable) as error:
            logger.warning("the samples at %s are not shown: %s", source.uri, error.message)
        except Exception:
            logger.exception("the samples at %s are not shown, by a defect of the replica", source.uri)
        else:
            self._replayed.supply(samples.inputs, enough=samples.enough)

    async def _replay_one(self, peers: PeerConnections, orders: ShadowOrders, counts: ShadowCounts) -> None:
        found = self._next_replayed()
        if found is None:
            return
        if found.made:
            await self._show(peers, Sample(orders, counts, found.inputs, replayed=found))
            return
        body = self._requests.encode(found.inputs)
        bounds = (_MOST_BYTES, _MOST_SECONDS)
        answers = await self._ask_both(peers, orders, Shown.REPLAYED, body, bounds)
        if NOTHING not in answers[:2]:
            counts.count_replayed()

    def _next_replayed(self) -> ReplayedInput | None:
        try:
            return self._replayed.next_inputs()
        except Exception:
            logger.exception("no inputs can be made for the model, by a defect of the replica")
            self._replay = None
            return None

    async def _show(self, peers: PeerConnections, sample: Sample) -> None:
        """Show a sample and count what came of it. A defect, such as an output that no rule understands, drops the sample."""
        try:
            judged = await self._judge(peers, sample)
        except Exception:
            logger.exception("a sample was dropped by a defect of the replica")
            judged = None
        if judged is None:
            sample.counts.drop()
        elif sample.replayed is None or sample.replayed.compared:
            sample.counts.count(judged, keep_payloads=sample.orders.keep_payloads)

    async def _judge(self, peers: PeerConnections, sample: Sample) -> JudgedSample | None:
        """What came of a sample; None: nothing that tells anything."""
        orders, own, seconds = sample.orders, sample.own, sample.seconds
        if not orders.candidate:
            return None
        peers.keep_only((self._itself, *orders.candidate, *orders.twins))
        body = self._requests.encode(sample.inputs)
        if own is None:
            began = time.monotonic()
            own = await self._answer_itself(peers, body)
            self._own_seconds = seconds = time.monotonic() - began
            if own is None:
                return None
        bounds = (
            _ANSWER_TIMES * size_of(own) + _MORE_ANSWER_BYTES,
            min(_LEAST_SECONDS + _TIMES_OWN * seconds, _MOST_SECONDS),
        )
        why = Shown.REPLAYED if sample.replayed is not None and sample.replayed.again else Shown.SAMPLED
        candidate, twin, own_seconds = await self._ask_both(peers, orders, why, body, bounds)
        cpu_seconds, self._cpu_seconds = self._cpu_seconds, time.thread_time()
        self._budget.observe(self._cpu_seconds - cpu_seconds, own_seconds)
        return self._compare(sample, own, candidate, twin)

    def _compare(
        self, sample: Sample, own: Mapping[str, Array], candidate: PeerAnswer, twin: PeerAnswer
    ) -> JudgedSample | None:
        orders = sample.orders
        if twin.outputs is None or candidate == NOTHING:
            return None
        specs, failed = self._signature.outputs, candidate.outputs is None
        compare = partial(
            compare_answers, own, specs=specs, rule=orders.loss, where_it_suits=orders.loss_where_it_suits
        )
        return JudgedSample(
            at=time.time(),
            candidate=Difference(1.0, told=candidate.failure)
            if candidate.outputs is None
            else compare(candidate.outputs),
            twin=compare(twin.outputs),
            failed=failed,
            made=sample.own is None,
            supplied=sample.replayed is not None and sample.replayed.supplied,
        )

    async def _ask_both(
        self,
        peers: PeerConnections,
        orders: ShadowOrders,
        why: Shown,
        body: tuple[bytes, ...],
        bounds: tuple[int, float],
    ) -> tuple[PeerAnswer, PeerAnswer, float]:
        """The candidate's answer, the twin's, and the seconds for which this replica was asked itself.

        One after the other, so that neither waits for the other where they share a core, and either first by chance. What the
        first has no room for, the second need not run.
        """
        peer = self._chance.choice(orders.candidate)
        if self._chance.getrandbits(1):
            candidate = await self._ask(peers, peer, why, body, bounds)
            twin, own_seconds = (
                (NOTHING, 0.0) if candidate == NOTHING else await self._ask_twin(peers, orders.twins, why, body, bounds)
            )
            return candidate, twin, own_seconds
        twin, own_seconds = await self._ask_twin(peers, orders.twins, why, body, bounds)
        candidate = NOTHING if twin == NOTHING else await self._ask(peers, peer, why, body, bounds)
        return candidate, twin, own_seconds

    async def _answer_itself(self, peers: PeerConnections, body: tuple[bytes, ...]) -> dict[str, Array] | None:
        """The replica's own answer to what no client has asked; None: it has none."""
        answer = await self._ask(peers, self._itself, Shown.ASKED, body, (_MOST_BYTES, _MOST_SECONDS))
        if answer == NOTHING:
            return None
        self._replayed.observe(took=answer.outputs is not None)
        return None if answer.outputs is None else {name: each.array for name, each in answer.outputs.items()}

    async def _ask_twin(
        self,
        peers: PeerConnections,
        twins: tuple[ShadowPeer, ...],
        why: Shown,
        body: tuple[bytes, ...],
        bounds: tuple[int, float],
    ) -> tuple[PeerAnswer, float]:
        """The twin's answer, and the seconds for which this replica was asked itself."""
        if twins:
            return await self._ask(peers, self._chance.choice(twins), why, body, bounds), 0.0
        began = time.monotonic()
        answer = await self._ask(peers, self._itself, why, body, bounds)
        return answer, time.monotonic() - began

    async def _ask(
        self, peers: PeerConnections, peer: ShadowPeer, why: Shown, body: tuple[bytes, ...], bounds: tuple[int, float]
    ) -> PeerAnswer:
        parts = (self._requests.head(why, peer.address, body), *body)
        try:
            return read_reply(await peers.ask(peer, parts, *bounds))
        except Unavailable as error:
            logger.info("a sample tells nothing: %s", error.message)
            return NOTHING
        except Invalid as error:
            return PeerAnswer(failure=error.message)
