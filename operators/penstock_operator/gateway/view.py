"""One gateway, as seen by all reconciles."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from penstock.errors import Unavailable
from penstock.routing.fleet import GatewayState
from penstock.routing.leases import RouteList, RouteStatus
from penstock_operator.clients.gateway import AnotherSecret, GatewayClient
from penstock_operator.deployment.observed import GatewayProblem, ObservedGateway

log = logging.getLogger(__name__)

_FRESH_SECONDS: Final = 0.5
_SHARE_OF_TIME: Final = 10.0
"""A listing serves for so many times as long as it took: a thousand models must not keep a gateway busy with telling."""
_LONGEST_FRESH_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Listed:
    """What a gateway said when it was asked last."""

    at: float
    fresh_until: float
    state: GatewayState
    routes: RouteList
    by_model: dict[tuple[str, str], RouteStatus]


class GatewayView:
    """One gateway's routes, half a second old or a little more. Safe for several threads.

    One that did not answer is not asked again by reconciles, each of which would wait out a timeout: `probe` is to be
    called every now and then, and finds out that it answers again.
    """

    def __init__(self, client: GatewayClient, clock: Callable[[], float] = time.monotonic) -> None:
        self.client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._failure: Unavailable | None = None
        self._seen: Listed | None = None
        self._changed: dict[tuple[str, str], tuple[float, RouteStatus | None]] = {}
        """When models' routes were changed since all was listed, and what it said then."""

    @property
    def address(self) -> str:
        """Its base URL."""
        return self.client.address

    def look(self, namespace: str, model: str) -> ObservedGateway | GatewayProblem:
        """What it knows of one model."""
        changed_at, told = self._changed.get((namespace, model), (float("-inf"), None))
        try:
            seen = self.list_routes(changed_at if told is None else float("-inf"))
        except Unavailable as error:
            return GatewayProblem(error.message, refuses=isinstance(error, AnotherSecret))
        status = told if told is not None and changed_at >= seen.at else seen.by_model.get((namespace, model))
        return ObservedGateway(
            self.address,
            seen.routes.url,
            status,
            seen.state.instance,
            complete=seen.state.complete,
            features=seen.state.features,
        )

    @property
    def refuses(self) -> bool:
        """Whether it was found to run by another secret than this operator."""
        return isinstance(self._failure, AnotherSecret)

    def list_routes(self, after: float = float("-inf")) -> Listed:
        """All that it knew later than `after`, on the clock of this. Raises `Unavailable`."""
        with self._lock:
            if self._failure is not None:
                raise type(self._failure)(self._failure.reason, self._failure.message)
            if self._seen is None or self._clock() > self._seen.fresh_until or self._seen.at <= after:
                started = self._clock()
                try:
                    routes, state = self.client.routes()
                except Unavailable as error:
                    self._fail(error)
                    raise
                by_model = {(each.namespace, each.model): each for each in routes.routes}
                now = self._clock()
                fresh = min(max(_FRESH_SECONDS, _SHARE_OF_TIME * (now - started)), _LONGEST_FRESH_SECONDS)
                self._seen = Listed(started, now + fresh, state, routes, by_model)
                self._changed = {key: change for key, change in self._changed.items() if change[0] >= started}
            return self._seen

    def probe(self) -> GatewayState | None:
        """Ask whether it answers (again), and what it says of itself; None where it does not answer."""
        try:
            state = self.client.state()
        except Unavailable as error:
            with self._lock:
                self._fail(error)
            return None
        with self._lock:
            if self._failure is not None:
                log.info("the gateway %s answers again", self.address)
            self._failure = None
            if self._seen is not None and self._seen.state.instance != state.instance:
                self._seen = None  # another process, which knows what it was told since
        return state

    def note_change(self, namespace: str, model: str, told: RouteStatus | None) -> None:
        """One model's route was changed. Others may go by what was told before.

        Args:
            namespace: of the model.
            model: its name.
            told: how it stands now, in the gateway's words: looks go by that until all is listed anew. None: the next
                look asks.
        """
        with self._lock:
            self._changed[namespace, model] = self._clock(), told

    def forget(self) -> None:
        """All may have changed: the next look asks."""
        with self._lock:
            self._seen = None

    def _fail(self, error: Unavailable) -> None:
        if self._failure is None:
            log.warning("%s", error.message)
        self._failure, self._seen = error, None
