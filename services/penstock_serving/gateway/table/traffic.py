"""From the table to where each path's requests go, and in what shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.routing.identities import replica_name
from penstock.routing.leases import ReplicaRoom, Route
from penstock.routing.table import ModelKey, Replica, Table

WEIGHT = 256
"""Of each of HAProxy's servers: requests of one revision are shared by its replicas alike."""
PER_MILLION = 1_000_000
LOTS = 100
"""A request whose path leads to several revisions draws one of so many lots, each of which is a revision's: weights are percents."""


@dataclass(frozen=True, slots=True)
class Target:
    """A replica that receives."""

    replica_id: str
    address: str
    weight: int
    """Where this process chooses: against other targets of the destination."""
    most_requests: int = 0
    """In flight at once; 0: as many as come."""
    tls_name: str = ""
    """That its certificate must have; empty: it speaks no TLS."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A revision that gets a share of a path's requests."""

    place: str
    """What it is known by among paths; it is none, since no request names it."""
    lots: int
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the requests of one path go. Without a target they wait."""

    targets: tuple[Target, ...]
    sampled_per_million: int
    arms: tuple[Arm, ...] = ()
    """Those of several revisions that share the requests; none: the least busy replica gets each."""
    sticky: bool = False
    """Whether each caller has one lot."""
    retry_after_seconds: int = 1
    """When to come again, where no target has room."""
    uid: str = ""
    """Of the deployment whose token its replicas registered with; empty where none says."""


_Basis = tuple[Route | None, list[tuple[str, str, str, str, str, ReplicaRoom | None, bool | None, bool]]]
"""What a model's destinations follow from: its route; of each replica id, address, version, revision, uid, its room, whether it
speaks TLS, and whether it receives."""


def share_lots(weights: Mapping[str, int]) -> Mapping[str, int]:
    """How many of the lots each revision gets: what its weight is of all, rounded by largest remainders, but at least one.

    Args:
        weights: by revision, each above 0.

    Returns:
        Lots by revision, `LOTS` together where there are no more revisions than that.
    """
    total = sum(weights.values())
    lots = {name: max(1, LOTS * weight // total) for name, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda name: (-(LOTS * weights[name] % total), name))
    for name in by_remainder[: max(0, LOTS - sum(lots.values()))]:
        lots[name] += 1
    while (over := sum(lots.values()) - LOTS) > 0 and max(lots.values()) > 1:
        largest = max(lots, key=lambda name: (lots[name], name))
        lots[largest] -= min(over, lots[largest] - 1)
    return lots


def _order(route: Route, revisions: Iterable[str]) -> list[str]:
    """Revisions as they get lots: the candidate first, so that whoever has one of its lots keeps it while it gets more."""
    told = route.comparison
    first = {} if told is None else {told.candidate: 0, told.baseline: 1, told.stable: 3}
    return sorted(revisions, key=lambda name: (first.get(name, 2), name))


def tls_name_of(replica: Replica) -> str:
    """The name that a replica's certificate must have; empty where it speaks no TLS."""
    return replica_name(*replica.key, replica.uid, replica.replica_id) if replica.lease.encrypted else ""


def _target(replica: Replica, weight: int = WEIGHT) -> Target:
    room = replica.lease.room
    return Target(replica.replica_id, replica.lease.address, weight, room.requests if room else 0, tls_name_of(replica))


def _destination(table: Table, key: ModelKey, version: str | None, replicas: Iterable[Replica]) -> Destination:
    route = table.routes.get(key)
    receiving = sorted((r for r in replicas if table.receives(r)), key=lambda replica: replica.replica_id)
    members = [r for r in receiving if version in (None, r.lease.version)]
    revisions = {r.lease.revision for r in members}
    found = Destination(
        targets=tuple(map(_target, members)),
        sampled_per_million=round(PER_MILLION * route.sampling_ratio) if route is not None else 0,
        retry_after_seconds=min((r.lease.room.retry_after_seconds for r in members if r.lease.room), default=1),
        uid=max((r.uid for r in members), default=""),
    )
    if route is None or not route.revisions or len(revisions) <= 1:
        return found
    # Where all are of one version, its arms are the model's.
    scope = key if len(members) == len(receiving) else (*key, str(version))
    return _split(found, route, "/".join(scope), members)


def _split(found: Destination, route: Route, scope: str, members: Sequence[Replica]) -> Destination:
    """A destination whose requests several revisions share, whatever their numbers of replicas."""
    grouped: dict[str, list[Replica]] = {}
    for replica in members:
        grouped.setdefault(replica.lease.revision, []).append(replica)
    lots = share_lots({revision: route.revisions[revision] for revision in grouped})
    weights = {name: PER_MILLION * lots[name] // len(replicas) for name, replicas in grouped.items()}
    return replace(
        found,
        targets=tuple(_target(r, weights[r.lease.revision]) for r in members),
        arms=tuple(
            Arm(f"{scope}#{name}", lots[name], tuple(map(_target, grouped[name]))) for name in _order(route, grouped)
        ),
        sticky=route.comparison is not None and route.comparison.sticky,
    )


class Traffic:
    """Where requests go. Of a model for which nothing changed since the last time, what was found then is given again."""

    def __init__(self) -> None:
        self._found: dict[ModelKey, tuple[_Basis, dict[str, Destination]]] = {}

    def destinations(self, table: Table) -> dict[str, Destination]:
        """By `namespace/model` and, for each version with a replica, `namespace/model/version`."""
        grouped: dict[ModelKey, list[Replica]] = {key: [] for key in table.routes}
        for replica in table.replicas.values():
            grouped.setdefault(replica.key, []).append(replica)
        found = {}
        for key, replicas in sorted(grouped.items()):
            basis = (
                table.routes.get(key),
                [
                    (
                        r.replica_id,
                        r.lease.address,
                        r.lease.version,
                        r.lease.revision,
                        r.uid,
                        r.lease.room,
                        r.lease.encrypted,
                        table.receives(r),
                    )
                    for r in replicas
                ],
            )
            known = self._found.get(key)
            found[key] = (
                known if known is not None and known[0] == basis else (basis, _model_destinations(table, key, replicas))
            )
        self._found = found
        return {path: each for _, paths in found.values() for path, each in paths.items()}


def _model_destinations(table: Table, key: ModelKey, replicas: Sequence[Replica]) -> dict[str, Destination]:
    path = "/".join(key)
    destinations = {path: _destination(table, key, None, replicas)}
    for version in sorted({replica.lease.version for replica in replicas}):
        destinations[f"{path}/{version}"] = _destination(table, key, version, replicas)
    return destinations


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no such model, or no such version of it."""

    message: str


def lookup(table: Table, key: ModelKey, version: str | None) -> Destination | Unknown:
    """Where one request goes.

    Args:
        table: leases and routes.
        key: namespace and model.
        version: the version in the path, if any.

    Returns:
        A destination (without targets: wait for one), or why there is none.
    """
    namespace, model = key
    if not namespace:
        # A client whose address ends with a slash, and whose paths begin with one.
        return Unknown("the path begins with two slashes: write /v2/models/ or /NAMESPACE/v2/models/")
    if not table.knows(key):
        return Unknown(f"model '{model}' is not found in namespace '{namespace}'")
    replicas = list(table.replicas_of(key))
    versions = {replica.lease.version for replica in replicas}
    if version is not None and versions and version not in versions:
        known = ", ".join(sorted(versions))
        return Unknown(f"model '{model}' in namespace '{namespace}' has no version '{version}', only: {known}")
    return _destination(table, key, version, replicas)
