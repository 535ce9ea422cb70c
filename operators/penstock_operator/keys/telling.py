"""Tells every gateway the keys of each namespace: all of them once, and then what became of them.

What it remembers only spares work: a gateway says by a digest what it holds, and where that is not what was remembered, it is told
all anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence

from penstock.errors import Unavailable
from penstock.routing.fleet import NAMESPACE_KEYS
from penstock.routing.keys import KeySet
from penstock_operator.deployment.access import namespace_keys
from penstock_operator.deployment.observed import GatewayProblem
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.gateway.view import GatewayView
from penstock_operator.keys.directory import KeyDirectory
from penstock_operator.runtime.cluster import is_refusal

log = logging.getLogger(__name__)


class KeyTeller:
    """Safe for several threads.

    Args:
        fleet: the gateways.
        directory: where keys are found.
        clock: epoch seconds.
    """

    def __init__(self, fleet: Fleet, directory: KeyDirectory, clock: Callable[[], float] = time.time) -> None:
        self._fleet = fleet
        self._directory = directory
        self._clock = clock
        self._held: dict[tuple[str, str], dict[str, str]] = {}
        """By a gateway's address and instance: the digest of what it holds, by namespace."""
        self._told: dict[str, dict[str, KeySet]] = {}
        """By namespace and digest, what gateways were told last."""
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        """By namespace: who read its keys earlier must not tell them later."""

    def tell(self, namespace: str) -> Sequence[GatewayProblem]:
        """Tell all gateways what a namespace's keys are now; those that have not taken it.

        Raises:
            Unavailable: the keys cannot be read.
        """
        views = [view for views in self._fleet.sites() for view in views]
        with self._turn(namespace):
            wanted = self._read_keys(namespace)
            return [problem for view in views if (problem := self._tell(view, namespace, wanted)) is not None]

    def look(self, view: GatewayView, namespaces: Collection[str], forgotten: Collection[str] | None) -> bool:
        """Ask a gateway what it holds, and tell it what it lacks; whether it holds all that it should.

        Args:
            view: the gateway.
            namespaces: that have deployments.
            forgotten: of which it is to hold nothing, where not among those; None: all others.
        """
        try:
            if not _takes_keys(view):
                return True
            held = view.client.key_digests()
            with self._lock:
                self._held = {key: each for key, each in self._held.items() if key[0] != view.address}
                self._held[_identity(view)] = held
            for namespace in held.keys() - set(namespaces):
                if forgotten is None or namespace in forgotten:
                    view.client.forget_keys(namespace)
        except Unavailable:
            return False
        lacking = [each for each in sorted(namespaces) if not self._bring_up_to_date(view, each)]
        return not lacking

    def _turn(self, namespace: str) -> threading.Lock:
        with self._lock:
            return self._turns.setdefault(namespace, threading.Lock())

    def _bring_up_to_date(self, view: GatewayView, namespace: str) -> bool:
        with self._turn(namespace):
            try:
                wanted = self._read_keys(namespace)
            except Unavailable as error:
                if not is_refusal(error):
                    raise
                log.info("the keys of %s stay as gateways hold them: %s", namespace, error.message)
                return True  # one namespace that may not be read must keep no gateway from the others
            return self._tell(view, namespace, wanted) is None

    def _read_keys(self, namespace: str) -> KeySet:
        return KeySet.from_keys(namespace_keys(self._directory.keys(namespace), self._clock()))

    def _tell(self, view: GatewayView, namespace: str, wanted: KeySet) -> GatewayProblem | None:
        try:
            if not _takes_keys(view):
                return None  # it is told them with each route
            identity = _identity(view)
            with self._lock:
                held = self._held.get(identity)
            if held is None:
                held = view.client.key_digests()
            if held.get(namespace) != wanted.digest:
                self._change(view, namespace, wanted, held.get(namespace, ""))
            with self._lock:
                self._held.setdefault(identity, dict(held))[namespace] = wanted.digest
                self._told[namespace] = {wanted.digest: wanted}
        except Unavailable as error:
            with self._lock:
                self._held.pop(_identity_or_none(view), None)
            return GatewayProblem(error.message)
        return None

    def _change(self, view: GatewayView, namespace: str, wanted: KeySet, held: str) -> None:
        """Tell what became of the keys; where it holds others than was thought, tell all."""
        with self._lock:
            known = self._told.get(namespace, {}).get(held, KeySet())
        try:
            view.client.change_keys(known.change_to(wanted, namespace, known=held))
        except Unavailable as error:
            if not known.digest:
                raise
            log.info("%s; telling it all keys of %s", error.message, namespace)
            view.client.change_keys(KeySet().change_to(wanted, namespace, known=""))


def _takes_keys(view: GatewayView) -> bool:
    return NAMESPACE_KEYS in view.list_routes().state.features


def _identity(view: GatewayView) -> tuple[str, str]:
    return view.address, view.list_routes().state.instance


def _identity_or_none(view: GatewayView) -> tuple[str, str]:
    try:
        return _identity(view)
    except Unavailable:
        return view.address, ""
