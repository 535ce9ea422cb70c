"""Keeps HAProxy running and holding what the table says."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time

from penstock.api.access import Authentication
from penstock.errors import Unavailable
from penstock.routing.access import Locks
from penstock.routing.tokens import data_token, replica_token
from penstock_serving.gateway.access.admissions import Admissions
from penstock_serving.gateway.haproxy.access_rules import render_grants, render_locks
from penstock_serving.gateway.haproxy.config import render_config, render_map
from penstock_serving.gateway.haproxy.plan import (
    DesiredState,
    Maps,
    ObservedState,
    assign,
    desire,
    list_places,
    plan,
    recall,
    state_after,
)
from penstock_serving.gateway.haproxy.process import Haproxy
from penstock_serving.gateway.haproxy.runtime_socket import apply, observe
from penstock_serving.gateway.settings import GatewaySettings
from penstock_serving.gateway.table.registry import Registry
from penstock_serving.gateway.table.traffic import Destination, Traffic

logger = logging.getLogger(__name__)
_START_SECONDS = 20.0
_RESYNC_SECONDS = 5.0
_BUSY_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 0.2


class Convergence:
    """Observes HAProxy, plans, applies; starts it when it is gone and reloads it when it has too few slots."""

    def __init__(self, settings: GatewaySettings, registry: Registry, admissions: Admissions, haproxy: Haproxy) -> None:
        self._settings = settings
        self._layout = settings.layout
        self._maps = Maps(*map(str, (self._layout.map, self._layout.locks, self._layout.grants, self._layout.usual)))
        self._admissions = admissions
        self._registry = registry
        self._haproxy = haproxy
        self._slots = settings.slots
        self._traffic = Traffic()
        self._slot_of: dict[str, int] = {}
        self._resting: dict[str, tuple[int, float]] = {}
        """Slots of paths that are gone, and until when a request may still be under way there."""
        self._edition = ""
        """Of the configuration that was written last. Only a worker that runs it is ever told anything."""
        self._held: ObservedState | None = None
        """What HAProxy holds after all that it was told since it was asked; None: it is to be asked."""
        self._ask_at = 0.0
        self._told: dict[str, dict[str, int]] = {}
        """How many requests at once each server was bounded to, by backend: of all that the worker holds it says this alone not."""

    @property
    def edition(self) -> str:
        """Which configuration HAProxy's present worker runs; empty before the first."""
        return self._edition

    async def run(self) -> None:
        """Converge for ever."""
        backoff = 0.1
        while True:
            generation, began = self._registry.generation, self._registry.now()
            try:
                busy = await self._converge(generation)
            except Unavailable as error:
                logger.warning("%s; trying again in %.1f s", error, backoff)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)
                continue
            backoff = 0.1
            # A round is work for all models: what changes meanwhile is told together.
            await asyncio.sleep(min(self._registry.now() - began, _LONGEST_PAUSE_SECONDS))
            await self._wait_for_work(generation, _BUSY_SECONDS if busy else _RESYNC_SECONDS)

    async def expire(self) -> None:
        """End leases when their time is up, for ever."""
        while True:
            self._registry.expire()
            generation = self._registry.generation
            due = self._registry.table.next_expiry()
            wait = _RESYNC_SECONDS if due is None else max(0.01, due - self._registry.now())
            # A renewal changes nothing here, so a wait may be too short but never too long: a new lease wakes it.
            await self._registry.wait_for_change(generation, min(wait, _RESYNC_SECONDS))

    async def _wait_for_work(self, generation: int, seconds: float) -> None:
        """Until the table changes, HAProxy is to be told of verified tokens, it ends, or the time is up."""
        changed = asyncio.create_task(self._registry.wait_for_change(generation, seconds))
        admitted = asyncio.create_task(self._admissions.wait_for_news())
        exited = asyncio.create_task(self._haproxy.wait())
        try:
            await asyncio.wait((changed, admitted, exited), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (changed, admitted, exited):
                task.cancel()
            await asyncio.gather(changed, admitted, exited, return_exceptions=True)

    async def _converge(self, generation: int) -> bool:
        """One round. True where servers still wait for removal."""
        destinations = self._traffic.destinations(self._registry.table)
        held, self._held = self._held, None
        if self._haproxy.running:
            observed = await self._observe() if held is None or self._registry.now() >= self._ask_at else held
        else:
            observed = await self._start(destinations)
        if not self._assign(destinations, observed):
            observed = await self._grow(destinations)
        desired = self._desire(destinations)
        steps = plan(desired, observed, self._maps)
        self._told = {}
        for complaint in await apply(self._layout.runtime_socket, steps.changes, self._edition):
            raise Unavailable("HaproxyRefused", f"HAProxy refused a command: {complaint}")
        self._told = _bounds(desired)
        self._registry.settle(generation)
        if steps.removals:
            await apply(self._layout.runtime_socket, steps.removals, self._edition)
        else:
            self._held = state_after(desired, observed)
        return bool(steps.removals)

    async def _observe(self) -> ObservedState:
        observed = await observe(self._layout.runtime_socket, self._maps, self._edition)
        self._ask_at = self._registry.now() + _RESYNC_SECONDS
        return recall(observed, self._told)

    def _desire(self, destinations: dict[str, Destination]) -> DesiredState:
        wanted = self._locks()
        return desire(
            destinations,
            self._slot_of,
            render_locks(wanted),
            render_grants(wanted),
            token=self._token,
            default_namespace=self._settings.default_namespace,
            authority=str(self._layout.authority),
        )

    def _token(self, path: str, uid: str) -> str:
        namespace, model = path.split("/")[:2]
        return data_token(replica_token(self._settings.secret, namespace, model, uid))

    def _locks(self) -> Locks:
        """Who may ask what, by what is declared now and by the tokens that were verified."""
        now = time.time()
        return self._registry.keyring.locks(
            self._registry.table.keys(),
            self._admissions.collect(now),
            now,
            default_required=self._settings.default_authentication is Authentication.REQUIRED,
        )

    def _assign(self, destinations: dict[str, Destination], observed: ObservedState) -> bool:
        """Whether every place that needs a slot has one now."""
        now = self._registry.now()
        before, places = self._slot_of, list_places(destinations)
        self._resting = {path: (slot, until) for path, (slot, until) in self._resting.items() if until > now}
        for path, slot in before.items():
            if path not in places:
                # A request of the old path may still be retried in this slot.
                self._resting[path] = slot, now + self._settings.request_timeout_seconds
        resting = {path: slot for path, (slot, _) in self._resting.items()}
        occupied = {int(b[1:]) for b, servers in observed.backends.items() if servers and b[1:].isdigit()}
        unfit = {*resting.values(), *(occupied - set(before.values()))}
        # What may still be under way in its own slot does not keep a path that comes back from it.
        assigned = assign(places, resting | before, self._slots, unfit)
        kept = {path: slot for path, slot in before.items() if path in places}
        self._slot_of = kept if assigned is None else assigned
        self._resting = {path: rest for path, rest in self._resting.items() if path not in self._slot_of}
        return assigned is not None

    def _fit(self, destinations: dict[str, Destination]) -> None:
        """Give every path with a replica a slot of a worker that is to come, of more slots where these are too few."""
        # A new worker has no request under way, so no slot must rest there.
        self._resting = {}
        places = list_places(destinations)
        assigned = assign(places, self._slot_of, self._slots, ())
        while assigned is None:
            self._slots *= 2
            assigned = assign(places, self._slot_of, self._slots, ())
        self._slot_of = assigned
        self._write(self._desire(destinations))

    async def _start(self, destinations: dict[str, Destination]) -> ObservedState:
        """Start HAProxy with all servers known now."""
        self._slot_of = {}
        self._fit(destinations)
        self._layout.runtime_socket.unlink(missing_ok=True)
        self._layout.master_socket.unlink(missing_ok=True)
        await self._haproxy.start()
        logger.info("HAProxy started with %d slots", self._slots)
        return await self._wait_until_loaded()

    async def _grow(self, destinations: dict[str, Destination]) -> ObservedState:
        """Reload with more slots; no connection is refused and no request lost.

        The old worker has requests under way in slots that the new one gives to other paths: it is told nothing more.
        """
        before = self._slots, self._slot_of, self._resting, self._edition, self._told
        # Twice as many also where only resting ones are missing: paths that come and go cause ever fewer reloads.
        self._slots *= 2
        self._fit(destinations)
        logger.info("reloading HAProxy with %d slots", self._slots)
        try:
            complaint = await self._haproxy.reload()
        except Unavailable:
            # Nobody knows what it runs now; a new one is started.
            await self._haproxy.stop(0)
            raise
        if complaint:
            # The old worker goes on, with all that it holds.
            self._slots, self._slot_of, self._resting, self._edition, self._told = before
            raise Unavailable("HaproxyRefused", f"HAProxy refused to load more slots: {complaint}")
        return await self._wait_until_loaded()

    async def _wait_until_loaded(self) -> ObservedState:
        """Wait until the worker that runs the configuration on disk answers."""
        deadline = self._registry.now() + _START_SECONDS
        while self._haproxy.running:
            try:
                return await self._observe()
            except Unavailable:
                if self._registry.now() > deadline:
                    await self._haproxy.stop(0)
                    break
            await asyncio.sleep(0.02)
        raise Unavailable("HaproxyNotStarted", "HAProxy ended, or did not answer in time; its messages are above")

    def _write(self, desired: DesiredState) -> None:
        self._edition = secrets.token_hex(8)
        self._told = _bounds(desired)
        text = render_config(self._settings, self._slots, desired, self._edition)
        self._layout.config.write_text(text, encoding="utf-8")
        files = (
            (self._layout.map, desired.entries),
            (self._layout.locks, desired.locks),
            (self._layout.grants, desired.grants),
            (self._layout.usual, desired.usual),
        )
        for file, entries in files:
            file.write_text(render_map(entries), encoding="utf-8")


def _bounds(desired: DesiredState) -> dict[str, dict[str, int]]:
    """By backend and server, how many requests at once it gets."""
    return {
        backend: {name: each.most_requests for name, each in servers.items()}
        for backend, servers in desired.backends.items()
    }
