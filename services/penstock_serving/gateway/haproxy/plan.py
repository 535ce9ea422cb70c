"""From the table to HAProxy: what it should hold, and the commands that take it there from what it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from penstock.routing.tokens import gateway_word
from penstock_serving.gateway.haproxy.lot_rules import LOTS_BY_CHANCE, STICKY_LOTS, lot_key
from penstock_serving.gateway.haproxy.usual import Way, usual_rows
from penstock_serving.gateway.table.traffic import Destination, Target

AGENT = "agent"
SLOT = "m"
"""How the backends of replicas begin."""
SUCCESSOR = "successor"
"""The server by which a worker that was replaced reaches the present one."""
AUTHORITY = "authority"
"""The server that is never used, by which HAProxy comes to know the file of the platform's own authority."""
CHECK = "check inter 5s fastinter 500ms downinter 500ms fall 1 rise 1 observe layer4 error-limit 1 on-error mark-down"
"""A refused connection takes a server out at once, and a check brings it back; the lease decides the rest."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server as it should be."""

    address: str
    weight: int
    most_requests: int = 0
    """At once, HAProxy's `maxconn`; 0: without a bound."""
    tls: str = ""
    """What makes HAProxy speak TLS to it."""

    @property
    def settings(self) -> str:
        """As HAProxy's configuration and its commands have them."""
        bound = f" maxconn {self.most_requests}" if self.most_requests else ""
        return f"{self.address} weight {self.weight}{bound} {CHECK}{self.tls}"


@dataclass(frozen=True, slots=True)
class ObservedServer:
    """A server as HAProxy holds it."""

    weight: int
    maintenance: bool
    most_requests: int | None = 0
    """None: HAProxy does not say, and it was not told since it was asked."""


@dataclass(frozen=True, slots=True)
class DesiredState:
    """What HAProxy should hold: servers by backend and name, and the maps' entries."""

    backends: Mapping[str, Mapping[str, Server]]
    entries: Mapping[str, str]
    locks: Mapping[str, str] = field(default_factory=dict)
    """How models are guarded."""
    grants: Mapping[str, str] = field(default_factory=dict)
    """What keys and tokens open."""
    usual: Mapping[str, str] = field(default_factory=dict)
    """By what usual requests are decided; all of it follows from the others."""


@dataclass(frozen=True, slots=True)
class ObservedState:
    """What HAProxy holds. Every backend that it has is named, also without servers of ours."""

    backends: Mapping[str, Mapping[str, ObservedServer]]
    entries: Mapping[str, str]
    locks: Mapping[str, str] = field(default_factory=dict)
    grants: Mapping[str, str] = field(default_factory=dict)
    usual: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps' names, which are those of their files."""

    entries: str
    locks: str
    grants: str
    usual: str


@dataclass(frozen=True, slots=True)
class RuntimeCommands:
    """Runtime commands: `changes` decide where requests go; `removals` clean up, and fail while a server is busy."""

    changes: tuple[str, ...]
    removals: tuple[str, ...]


@lru_cache(maxsize=1 << 14)
def server_name(target: Target) -> str:
    """HAProxy's name for a replica at an address; another address is another server, and so is one that speaks TLS."""
    named = f"\n{target.tls_name}" if target.tls_name else ""
    return "r" + hashlib.sha256(f"{target.replica_id}\n{target.address}{named}".encode()).hexdigest()[:20]


def verify_by(authority: str) -> str:
    """What makes HAProxy trust a server only with a certificate of the authority in a file."""
    return f"ssl verify required ca-file {authority}"


def list_places(destinations: Mapping[str, Destination]) -> dict[str, bool]:
    """All that may have a slot, paths and arms, and whether it has to: its requests go to replicas."""
    places = {}
    for path, destination in destinations.items():
        places[path] = bool(destination.targets)
        places |= {arm.place: True for arm in destination.arms}
    return places


def assign(
    places: Mapping[str, bool], previous: Mapping[str, int], slots: int, unfit: Collection[int]
) -> dict[str, int] | None:
    """Give each place that needs one a slot; one that has one keeps it as long as the place is known.

    Args:
        places: by name, whether it needs a slot.
        previous: slots as they are.
        slots: how many there are.
        unfit: slots in which another place's requests may still be under way.

    Returns:
        Slot by place, or None where there are too few.
    """
    kept = {name: slot for name, slot in previous.items() if name in places and slot < slots}
    taken = {*kept.values(), *unfit}
    free = iter(slot for slot in range(slots) if slot not in taken)
    for name, needed in places.items():
        if name not in kept and needed:
            slot = next(free, None)
            if slot is None:
                return None
            kept[name] = slot
    return kept


def desire(
    destinations: Mapping[str, Destination],
    slot_of: Mapping[str, int],
    locks: Mapping[str, str],
    grants: Mapping[str, str],
    *,
    token: Callable[[str, str], str] = lambda _, __: "",
    default_namespace: str = "default",
    authority: str = "",
) -> DesiredState:
    """What HAProxy should hold for these destinations.

    Args:
        destinations: by path.
        slot_of: the slot of each path and arm.
        locks: how models are guarded.
        grants: what credentials open.
        token: of a path and its replicas' uid, what is shown to them with each request.
        default_namespace: whose models have a path without a namespace, too.
        authority: file with the authority of replicas' certificates.

    A slot is a backend, `m` and a number. A path that several revisions share leads to no backend, but to lots: `w` and its slot's
    number, or `s` where each caller has one lot, and the map says of each lot which arm's backend it leads to.
    """
    backends = {}
    entries = {}
    ways = {}
    for path, destination in destinations.items():
        slot = slot_of.get(path)
        asleep = slot is None or not destination.targets or any(arm.place not in slot_of for arm in destination.arms)
        way = AGENT if asleep else f"{_kind(destination)}{slot}"
        shown = token(path, destination.uid)
        entries[path] = f"{way}|{destination.sampled_per_million}|{shown}"
        if asleep:
            continue
        ways[path] = Way(way, destination.sampled_per_million, gateway_word(path.partition("/")[0], shown))
        served = {f"{SLOT}{slot_of[arm.place]}": arm.targets for arm in destination.arms}
        for backend, targets in (served or {way: destination.targets}).items():
            backends[backend] = {
                server_name(t): Server(t.address, t.weight, t.most_requests, _tls(t, authority)) for t in targets
            }
            if destination.retry_after_seconds > 1:
                entries[backend] = str(destination.retry_after_seconds)
        lots = (f"{SLOT}{slot_of[arm.place]}" for arm in destination.arms for _ in range(arm.lots))
        entries |= {lot_key(lot, way): backend for lot, backend in enumerate(lots)}
    return DesiredState(backends, entries, locks, grants, usual_rows(ways, locks, grants, default_namespace))


def _kind(destination: Destination) -> str:
    if not destination.arms:
        return SLOT
    return STICKY_LOTS if destination.sticky else LOTS_BY_CHANCE


def _tls(target: Target, authority: str) -> str:
    # Without `check-ssl`, a server that was added at run time is checked without its certificate being looked at. A busy replica may
    # need a moment for a handshake, where the kernel accepts by itself.
    return (
        f" fastinter 2s downinter 2s check-ssl {verify_by(authority)} verifyhost {target.tls_name}"
        if target.tls_name
        else ""
    )


def plan(desired: DesiredState, observed: ObservedState, maps: Maps) -> RuntimeCommands:
    """The commands from observed to desired.

    Servers are added before the map leads to them, and leave only after it leads elsewhere. A key is there before the
    lock that it opens, a lock before the route to what it guards; they go the other way round. What decides usual requests
    follows from all these: what is no longer so goes first, and what is new comes when they hold it.
    """
    arrivals: list[str] = []
    departures: list[str] = []
    removals: list[str] = []
    for backend, wanted in desired.backends.items():
        present = observed.backends.get(backend, {})
        for name, server in wanted.items():
            arrivals += _arrive(f"{backend}/{name}", server, present.get(name))
    for backend, held in observed.backends.items():
        for name, present_server in held.items():
            if name not in desired.backends.get(backend, {}):
                if not present_server.maintenance:
                    departures.append(f"set server {backend}/{name} state maint")
                removals.append(f"del server {backend}/{name}")
    grants = _set_entries(desired.grants, observed.grants, maps.grants)
    locks = _set_entries(desired.locks, observed.locks, maps.locks)
    routes = _set_entries(desired.entries, observed.entries, maps.entries)
    gone = (
        *_delete_entries(desired.entries, observed.entries, maps.entries),
        *_delete_entries(desired.locks, observed.locks, maps.locks),
        *_delete_entries(desired.grants, observed.grants, maps.grants),
    )
    stale, fresh = _replace_entries(desired.usual, observed.usual, maps.usual)
    changes = (*stale, *arrivals, *grants, *locks, *routes, *gone, *fresh, *departures)
    return RuntimeCommands(changes, tuple(removals))


def recall(observed: ObservedState, told: Mapping[str, Mapping[str, int]]) -> ObservedState:
    """What HAProxy holds, with the bounds that it was told, which it does not say again.

    Args:
        observed: as it says.
        told: by backend and server, to the worker that was asked.
    """
    backends = {
        backend: {name: replace(each, most_requests=told.get(backend, {}).get(name)) for name, each in servers.items()}
        for backend, servers in observed.backends.items()
    }
    return replace(observed, backends=backends)


def state_after(desired: DesiredState, observed: ObservedState) -> ObservedState:
    """What HAProxy holds once all of the plan has been carried out, removals too."""
    backends = {
        backend: {
            name: ObservedServer(each.weight, maintenance=False, most_requests=each.most_requests)
            for name, each in servers.items()
        }
        for backend, servers in ((name, desired.backends.get(name, {})) for name in observed.backends)
    }
    return ObservedState(backends, desired.entries, desired.locks, desired.grants, desired.usual)


def _arrive(name: str, server: Server, present: ObservedServer | None) -> list[str]:
    if present is None:
        return [
            f"add server {name} {server.settings}",
            f"enable health {name}",
            f"enable server {name}",
        ]
    commands = []
    if present.weight != server.weight:
        commands.append(f"set server {name} weight {server.weight}")
    if present.most_requests != server.most_requests:
        commands.append(f"set maxconn server {name} {server.most_requests}")
    if present.maintenance:
        commands.append(f"set server {name} state ready")
    return commands


def _set_entries(wanted: Mapping[str, str], present: Mapping[str, str], map_path: str) -> list[str]:
    """New entries first: one that is to say less may lean on one that is new."""
    new = [f"add map {map_path} {key} {value}" for key, value in wanted.items() if key not in present]
    changed = [f"set map {map_path} {key} {value}" for key, value in wanted.items() if present.get(key, value) != value]
    return new + changed


def _replace_entries(
    wanted: Mapping[str, str], present: Mapping[str, str], map_path: str
) -> tuple[list[str], list[str]]:
    """What to delete, and what to add; an entry that is to say something else is not there in between."""
    stale = [f"del map {map_path} {key}" for key, value in present.items() if wanted.get(key) != value]
    fresh = [f"add map {map_path} {key} {value}" for key, value in wanted.items() if present.get(key) != value]
    return stale, fresh


def _delete_entries(wanted: Mapping[str, str], present: Mapping[str, str], map_path: str) -> list[str]:
    return [f"del map {map_path} {key}" for key in present if key not in wanted]
