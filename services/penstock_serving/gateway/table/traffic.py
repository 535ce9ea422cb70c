"""From the table to where each path's requests go, and with what weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.routing.identities import replica_name
from penstock.routing.leases import ReplicaRoom, Route
from penstock.routing.table import ModelKey, Replica, Table

MAX_WEIGHT = 256
"""HAProxy's highest server weight."""
PER_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Target:
    """A replica that receives."""

    replica_id: str
    address: str
    weight: int
    most_requests: int = 0
    """In flight at once; 0: as many as come."""
    tls_name: str = ""
    """That its certificate must have; empty: it speaks no TLS."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the requests of one path go. Without a target they wait."""

    targets: tuple[Target, ...]
    split: bool
    """Several revisions share the requests by weight; otherwise the least busy replica gets each."""
    sampled_per_million: int
    retry_after_seconds: int = 1
    """When to come again, where no target has room."""
    uid: str = ""
    """Of the deployment whose token its replicas registered with; empty where none says."""


_Basis = tuple[Route | None, list[tuple[str, str, str, str, str, ReplicaRoom | None, bool | None, bool]]]
"""What a model's destinations follow from: its route; of each replica id, address, version, revision, uid, its room, whether it
speaks TLS, and whether it receives."""


def weights(route: Route | None, replicas: Iterable[Replica]) -> Mapping[str, int]:
    """Each replica's weight, such that revisions get their shares whatever their number of replicas.

    A revision's weight is divided among its replicas; the largest quotient becomes 256, and none is below 1.

    Args:
        route: the declared route, if any.
        replicas: those that receive.

    Returns:
        Weight from 1 to 256 by replica id.
    """
    members = list(replicas)
    if route is None or not route.revisions or len({replica.lease.revision for replica in members}) <= 1:
        return {replica.replica_id: MAX_WEIGHT for replica in members}
    count = Counter(replica.lease.revision for replica in members)
    share = {r.replica_id: route.revisions[r.lease.revision] / count[r.lease.revision] for r in members}
    top = max(share.values(), default=1.0)
    return {replica_id: max(1, round(MAX_WEIGHT * value / top)) for replica_id, value in share.items()}


def tls_name_of(replica: Replica) -> str:
    """The name that a replica's certificate must have; empty where it speaks no TLS."""
    return replica_name(*replica.key, replica.uid, replica.replica_id) if replica.lease.encrypted else ""


def _destination(table: Table, key: ModelKey, version: str | None, replicas: Iterable[Replica]) -> Destination:
    route = table.routes.get(key)
    members = sorted(
        (r for r in replicas if table.receives(r) and version in (None, r.lease.version)),
        key=lambda replica: replica.replica_id,
    )
    weight = weights(route, members)
    declared = route is not None and bool(route.revisions)
    return Destination(
        targets=tuple(
            Target(
                r.replica_id,
                r.lease.address,
                weight[r.replica_id],
                r.lease.room.requests if r.lease.room else 0,
                tls_name_of(r),
            )
            for r in members
        ),
        split=declared and len({r.lease.revision for r in members}) > 1,
        sampled_per_million=round(PER_MILLION * route.sampling_ratio) if route is not None else 0,
        retry_after_seconds=min((r.lease.room.retry_after_seconds for r in members if r.lease.room), default=1),
        uid=max((r.uid for r in members), default=""),
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
    if not table.knows(key):
        return Unknown(f"model '{model}' is not found in namespace '{namespace}'")
    replicas = list(table.replicas_of(key))
    versions = {replica.lease.version for replica in replicas}
    if version is not None and versions and version not in versions:
        known = ", ".join(sorted(versions))
        return Unknown(f"model '{model}' in namespace '{namespace}' has no version '{version}', only: {known}")
    return _destination(table, key, version, replicas)
