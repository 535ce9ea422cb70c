"""A replica's part in judging a new revision: it draws samples of its requests, has them shown, and tells what came of them."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

from penstock.errors import Invalid
from penstock.routing.identities import replica_name
from penstock.routing.outcomes import ShadowOrders, ShadowOutcomes, ShadowPeer
from penstock.routing.tokens import uid_of
from penstock.serving.control import ReplicaSettings
from penstock_runtime.joining.making import RequestMaker
from penstock_serving.replica.execution.joint import BatchRun
from penstock_serving.replica.model.loading import LoadedModel
from penstock_serving.replica.shadow.counting import ShadowCounts
from penstock_serving.replica.shadow.exchange import ShadowRequests
from penstock_serving.replica.shadow.peers import PeerConnections
from penstock_serving.replica.shadow.replaying import ReplayedInputs, size_of
from penstock_serving.replica.shadow.sampling import SampleBudget, Sampler
from penstock_serving.replica.shadow.showing import Sample, ShadowThread

if TYPE_CHECKING:
    from penstock_serving.replica.identity import ReplicaIdentity

logger = logging.getLogger(__name__)


class Shadowing:
    """All methods are called on the replica's event loop, and none waits.

    Args:
        settings: the replica's.
        model: that it serves.
        address: host:port of its socket.
        identity: by which others know it; None: it speaks no TLS.
    """

    def __init__(
        self, settings: ReplicaSettings, model: LoadedModel, address: str, identity: ReplicaIdentity | None
    ) -> None:
        token = settings.registration_token
        self._model = model
        self._trust = None if identity is None else identity.trust
        name = replica_name(settings.namespace, settings.model, uid_of(token), settings.replica_id)
        self._itself = ShadowPeer(address=address, tls_name="" if identity is None else name)
        self._requests = ShadowRequests(settings.namespace, settings.model, token, model.signature)
        self._budget = SampleBudget()
        self._sampler = Sampler(self._budget, random.Random())  # noqa: S311 -- draws samples
        self._orders: ShadowOrders | None = None
        self._counts: ShadowCounts | None = None
        self._thread: ShadowThread | None = None
        self.draws = False
        """Whether requests are to be offered."""

    def obey(self, orders: ShadowOrders | None) -> None:
        """Do this from now on; None: nothing. What was counted stays, until another candidate is named."""
        if orders == self._orders:
            return
        self._orders = orders
        self.draws = False
        if orders is None:
            self.close()
        elif not self._requests.possible:
            logger.error(
                "samples are not shown: this replica registers by a former release's token, which others cannot know"
            )
        else:
            self._follow(orders)

    def offer(self, ran: BatchRun) -> None:
        """The requests of a batch were answered: draw samples among them. Costs next to nothing where there is none."""
        count = len(ran.members)
        if self._sampler.passes(count):
            return
        for place in self._sampler.draw(count, ran.end_ns / 1e9):
            self._show(ran, place)

    def outcomes(self) -> ShadowOutcomes | None:
        """What was counted; None: nothing was ever shown."""
        return None if self._counts is None else self._counts.outcomes()

    def close(self) -> None:
        """Show nothing any more."""
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    def _follow(self, orders: ShadowOrders) -> None:
        if self._counts is None or self._counts.revision != orders.revision:
            self._counts = ShadowCounts(orders.revision)
        if self._thread is None:
            self._thread = self._start()
        self._thread.follow(orders, self._counts)
        self._sampler.set_share(orders.share)
        self.draws = orders.share > 0

    def _start(self) -> ShadowThread:
        model = self._model
        axes = model.trial.joining.inputs if model.trial.joining is not None else {}
        names = getattr(model.engine, "axis_names", {})
        maker = RequestMaker(model.signature, names, axes, checks_ids=model.checks_ids)
        return ShadowThread(
            self._requests,
            model.signature,
            self._itself,
            peers=lambda: PeerConnections(self._trust),
            replayed=ReplayedInputs(maker, random.Random()),  # noqa: S311 -- draws samples
            budget=self._budget,
        )

    def _show(self, ran: BatchRun, place: int) -> None:
        """Have one request of a batch shown. Its arrays are nobody else's any more, and are not written to: none is copied."""
        call, own = ran.members[place].payload, ran.results[place]
        orders, counts, thread = self._orders, self._counts, self._thread
        if orders is None or counts is None or thread is None:
            return
        if call.shown is not None or call.reason or call.request is None or isinstance(own, Invalid):
            return
        inputs = call.request.inputs
        seconds = (call.written_ns - call.received_ns) / 1e9
        thread.offer(Sample(orders, counts, inputs, own, seconds, size_of(inputs) + size_of(own)))
