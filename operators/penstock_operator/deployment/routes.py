"""Declares a deployment's route to every gateway that has another, and takes it away again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial

from penstock.errors import Unavailable
from penstock.routing.leases import Route, RouteStatus
from penstock_operator.clients.gateway import GatewayClient
from penstock_operator.deployment.access import adapt_to_gateway
from penstock_operator.deployment.observed import GatewayProblem, Observed, ObservedGateway
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.runtime.cluster import Key

log = logging.getLogger(__name__)


class RouteWriter:
    """The edge to the gateways.

    Args:
        fleet: the gateways.
        tell_keys: tells every gateway a namespace's keys.
    """

    def __init__(self, fleet: Fleet, tell_keys: Callable[[str], object] = lambda _: None) -> None:
        self._fleet = fleet
        self._tell_keys = tell_keys

    def declare(self, observed: Observed, route: Route) -> None:
        """Declare a route to the gateways that have another. Raises `Unavailable` where the namespace's keys cannot be read."""
        for seen in (*observed.gateways, *observed.joining):
            if not isinstance(seen, ObservedGateway):
                continue
            told = adapt_to_gateway(route, seen, observed, time.time())
            if seen.route is None or seen.route.declared != told:
                # Keys before what they open: a model that a namespace's keys open is closed until they are told.
                self._tell_keys(route.namespace)
                self._tell(seen, Key(route.namespace, route.model), partial(GatewayClient.declare, route=told))

    def delete(self, key: Key, gateways: Iterable[ObservedGateway | GatewayProblem]) -> None:
        """Delete a route where there is one."""
        for seen in gateways:
            if isinstance(seen, ObservedGateway) and seen.route is not None and seen.route.declared is not None:
                self._tell(seen, key, partial(GatewayClient.delete, namespace=key.namespace, model=key.name))

    def _tell(self, seen: ObservedGateway, key: Key, what: Callable[[GatewayClient], RouteStatus | None]) -> None:
        """One gateway that fails must not keep the others, or the pool, from being told; the next look shows it."""
        view = self._fleet.find(seen.address)
        if view is None:
            return  # it is gone
        told = None
        try:
            told = what(view.client)
        except Unavailable as error:
            log.warning("%s", error.message)
        view.note_change(key.namespace, key.name, told)
