"""Looks after the gateways as they come and go: tells a fresh one all routes, and takes away what nobody owns.

What it remembers only spares work: another operator, which remembers nothing, brings every gateway to the same state.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.errors import PenstockError, Unavailable
from penstock.routing.fleet import (
    REPLICAS_WITHIN_SECONDS,
    GatewayState,
    downgrade_route,
    lacks_replicas,
    missing_routes,
    stale_routes,
)
from penstock.routing.leases import RouteList
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.gateway.view import GatewayView
from penstock_operator.runtime.cluster import Key, is_refusal
from penstock_operator.runtime.metrics import set_refusing_gateways

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 2.0
_SWEEP_SECONDS: Final = 60.0
_KEYS_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class KnownDeployments:
    """The deployments, as the keeper needs them."""

    known: Callable[[], Collection[Key] | None]
    """All there are, as last seen; None where they have not been listed yet."""
    exists: Callable[[Key], bool]
    """Whether one is there, by the API's own word. May raise `Unavailable`."""
    reconcile: Callable[[Key], None]
    """Look at one soon."""
    namespaces: tuple[str, ...] = ()
    """Where `known` is all; empty: everywhere."""
    unreadable: Callable[[], Collection[str]] = tuple
    """Namespaces of these that the API does not let be read now: of their deployments nothing is known."""
    tell_keys: Callable[[GatewayView, Collection[str]], bool] = lambda _, __: True
    """Tell a gateway the keys of the namespaces that have deployments; whether it has taken them. May raise `Unavailable`."""


class GatewayKeeper:
    """A thread of its own.

    Args:
        fleet: the gateways.
        models: the deployments.
        may_act: whether this process holds the lease.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        fleet: Fleet,
        models: KnownDeployments,
        may_act: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._models = models
        self._may_act = may_act
        self._clock = clock
        self._waiting: dict[tuple[str, str], set[Key]] = {}
        self._keys_at: dict[tuple[str, str], float] = {}
        """When each gateway is asked for its keys again."""
        self._lock = threading.Lock()
        self._sweep_at = clock() + _SWEEP_SECONDS
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateways", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def complaint(self) -> str | None:
        """What is wrong, for a liveness probe; None where it is well."""
        started, stopped = self._thread.ident is not None, self._stop.is_set()
        return (
            "the thread that looks after gateways is dead"
            if started and not stopped and not self._thread.is_alive()
            else None
        )

    def note_tried(self, address: str, instance: str, key: Key) -> None:
        """A reconcile told a gateway what it had to tell it of one deployment."""
        with self._lock:
            self._waiting.get((address, instance), set()).discard(key)

    def look(self) -> None:
        """One round."""
        self._fleet.refresh()
        known = self._models.known()
        if known is None:
            return
        sites = self._fleet.sites()
        states: dict[str, GatewayState] = {}
        for view in (view for views in sites for view in views):
            state = view.probe()
            if state is not None:
                states[view.address] = state
        set_refusing_gateways(sum(view.refuses for views in sites for view in views))
        self._forget_gone(states)
        for views in sites:
            for view in views:
                if view.address not in states:
                    continue
                try:
                    self._admit(view, states[view.address], [each for each in views if each is not view], known)
                except Unavailable as error:
                    log.info("%s; telling it again", error.message)
        if self._clock() >= self._sweep_at:
            self._sweep_at = self._clock() + _SWEEP_SECONDS
            self._sweep([view for views in sites for view in views if view.address in states], known)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if self._may_act():
                    self.look()
            except PenstockError as error:
                log.info("gateways: %s; looking again", error.message)
            except Exception:
                log.exception("bug while looking after the gateways; looking again")
            self._stop.wait(_LOOK_SECONDS)

    def _forget_gone(self, states: dict[str, GatewayState]) -> None:
        present = {(address, state.instance) for address, state in states.items()}
        with self._lock:
            for gone in set(self._waiting) - present:
                del self._waiting[gone]
        self._keys_at = {identity: at for identity, at in self._keys_at.items() if identity in present}

    def _admit(
        self, view: GatewayView, state: GatewayState, others: Sequence[GatewayView], known: Collection[Key]
    ) -> None:
        """Tell a process that was not seen before what it lacks, and call it complete once it has all."""
        identity = view.address, state.instance
        with self._lock:
            new = identity not in self._waiting
        if not new and state.complete:
            if self._clock() >= self._keys_at.get(identity, 0.0):
                self._has_keys(view, identity, known)
            return
        peers = _peers(others)
        if new:
            self._tell(view, identity, peers, known)
        with self._lock:
            waiting = self._waiting[identity]
            waiting.intersection_update(known)
            left = len(waiting)
        if state.complete or left:
            return
        if not self._has_keys(view, identity, known):
            return
        if state.age_seconds < REPLICAS_WITHIN_SECONDS and lacks_replicas(view.list_routes().routes, peers):
            return
        view.client.complete(state.instance)
        view.forget()
        log.info("the gateway %s has been told all routes", view.address)

    def _has_keys(self, view: GatewayView, identity: tuple[str, str], known: Collection[Key]) -> bool:
        """Whether a gateway holds all keys that it should; asked of each every so often, and of new ones at once."""
        self._keys_at[identity] = self._clock() + _KEYS_SECONDS
        return self._models.tell_keys(view, {key.namespace for key in known})

    def _tell(
        self, view: GatewayView, identity: tuple[str, str], peers: Sequence[RouteList], known: Collection[Key]
    ) -> None:
        """Copy what others were told, which is quick; the rest is for reconciles to tell."""
        unreadable = self._models.unreadable()
        missing = [
            each
            for each in missing_routes(view.list_routes().routes, peers)
            if (each.namespace, each.model) in known or each.namespace in unreadable
        ]
        features = view.list_routes().state.features
        if any(downgrade_route(features, each) != each for each in missing):
            missing = []  # in words that it does not know
        if missing:
            self._has_keys(view, identity, known)
            view.client.add(missing)
            view.forget()
        told = {
            Key(each.namespace, each.model) for each in view.list_routes().routes.routes if each.declared is not None
        }  # fmt: skip
        rest = {each for each in known if each not in told and each.namespace not in unreadable}
        log.info("the gateway %s lacks %d routes; %d copied from others", view.address, len(rest), len(missing))
        with self._lock:
            self._waiting[identity] = rest
        for key in rest:
            self._models.reconcile(key)

    def _sweep(self, views: Sequence[GatewayView], known: Collection[Key]) -> None:
        """Delete routes whose deployments are gone; only if the API itself says so of each."""
        for view in views:
            try:
                stale = stale_routes(view.list_routes().routes, known, self._models.namespaces)
            except Unavailable:
                continue  # the next round's
            for namespace, model in stale:
                if self._is_gone(Key(namespace, model)):
                    log.info(
                        "the gateway %s has a route of %s/%s, which is gone; deleting it",
                        view.address,
                        namespace,
                        model,
                    )
                    view.client.delete(namespace, model)
                    view.forget()

    def _is_gone(self, key: Key) -> bool:
        """By the API's own word. Where it gives none, its routes stay, and other tenants' are looked at all the same."""
        try:
            return not self._models.exists(key)
        except Unavailable as error:
            if not is_refusal(error):
                raise
            return False


def _peers(views: Sequence[GatewayView]) -> list[RouteList]:
    """What the other gateways of the same URL know, of those that were told all."""
    found = []
    for view in views:
        try:
            listed = view.list_routes()
        except Unavailable:
            continue  # it has nothing to copy now
        if listed.state.complete:
            found.append(listed.routes)
    return found
