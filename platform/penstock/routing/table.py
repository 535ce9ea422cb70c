"""Who is there and what is wanted: leases and routes as an immutable table, and what follows from it.

Times are seconds on the caller's monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from penstock.errors import Conflict, Invalid, Unavailable
from penstock.routing.keys import KeySet
from penstock.routing.leases import ReplicaLease, Route, RouteReplica, RouteStatus
from penstock.routing.validation import check_address, check_model, check_version

ModelKey = tuple[str, str]
"""Namespace and model."""
Version = tuple[ModelKey, str]
"""One version of a model."""

_MAX_REPLICAS = 1024
_MAX_OF_A_NAMESPACE = 4096
"""Replicas of all its models: each is a server of HAProxy's, and whoever may read a namespace's tokens may register as many as he likes."""
_MAX_VERSIONS = 8
MOST_COUNTED = 512
"""Replicas of a namespace whose outcomes are kept, each some 5 to 10 KB, and 37 at most."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica with a lease."""

    replica_id: str
    lease: ReplicaLease
    expires_at: float
    uid: str = ""
    """Of the deployment whose token it registered with; empty where the token does not say."""

    @property
    def key(self) -> ModelKey:
        """The model that it serves."""
        return self.lease.namespace, self.lease.model

    @property
    def version_key(self) -> Version:
        """The version that it serves."""
        return self.key, self.lease.version

    @property
    def revision_key(self) -> tuple[ModelKey, str]:
        """The revision that it is of."""
        return self.key, self.lease.revision


def replica_key(key: ModelKey, replica_id: str) -> str:
    """By what a replica is known: an id is one of its model's, so that no other model's token can take it."""
    return "/".join((*key, replica_id))


def _empty() -> MappingProxyType[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Table:
    """All leases and all declared routes. Every change gives a new table."""

    replicas: Mapping[str, Replica] = field(default_factory=_empty)
    """By `replica_key`."""
    routes: Mapping[ModelKey, Route] = field(default_factory=_empty)
    told_keys: Mapping[str, KeySet] = field(default_factory=_empty)
    """Of namespaces, as they were told for themselves."""
    resting: Mapping[Version, float] = field(default_factory=_empty)
    """Versions that have no replica any more, and until when requests may still be under way to them."""
    rest_seconds: float = 600.0
    """How long a request may be under way."""
    firsts: Mapping[tuple[ModelKey, str], str] = field(default_factory=_empty)
    """By model and revision that have replicas: the digest of the first that came."""

    def with_lease(self, replica_id: str, lease: ReplicaLease, now: float, uid: str = "") -> Table:
        """The table with this lease begun or renewed.

        Args:
            replica_id: one of the model's.
            lease: what the replica says.
            now: on the clock of the leases.
            uid: of the deployment that the replica's token is of; empty: the token does not say.

        Raises:
            Invalid: a name or the address is malformed.
            Conflict: the token is of a former deployment of this name.
            Unavailable: the model had too many versions lately.
        """
        check_model(lease.namespace, lease.model)
        check_version(lease.version)
        check_address(lease.address)
        key = lease.namespace, lease.model
        if _is_foreign(uid, self.routes.get(key)):
            raise Conflict("AnotherDeployment", "the token is of a former deployment of this name")
        own = replica_key(key, replica_id)
        known = self.replicas.get(own)
        if lease.joining is None and known is not None:
            lease = lease.model_copy(update={"joining": known.lease.joining})
        if lease.room is not None and known is not None:
            lease = lease.model_copy(update={"room": lease.room.following(known.lease.room)})
        if lease.outcomes is not None and not self._keeps_outcomes(lease, known):
            lease = lease.model_copy(update={"outcomes": None})
        renewed = Replica(replica_id, lease, now + lease.lease_seconds, uid)
        replicas = {**self.replicas, own: renewed}
        if known is not None and known.lease.version == lease.version:
            # It was within the bounds when it came, and counted for all that came later.
            return replace(self, replicas=replicas, firsts=self._first_digests(replicas, (known,), renewed))
        self._check_bounds(replica_id, lease, now)
        return self._with_replicas(replicas, now, () if known is None else (known,), renewed)

    def _keeps_outcomes(self, lease: ReplicaLease, known: Replica | None) -> bool:
        """Whether a replica's outcomes are asked for, and few enough: they are kept for all tenants in one memory."""
        if not self.compares((lease.namespace, lease.model), lease.revision):
            return False
        if known is not None and known.lease.outcomes is not None:
            return True
        others = (each.lease for each in self.replicas.values() if each.lease.outcomes is not None)
        return sum(other.namespace == lease.namespace for other in others) < MOST_COUNTED

    def _first_digests(
        self, replicas: Mapping[str, Replica], left: Iterable[Replica], came: Replica | None
    ) -> Mapping[tuple[ModelKey, str], str]:
        """The first digest of each revision: of one that has no replica any more it is forgotten."""
        gone = {each.revision_key for each in left if came is None or each.revision_key != came.revision_key}
        gone = {of for of in gone if not any(each.revision_key == of for each in replicas.values())}
        new = came is not None and came.revision_key not in self.firsts
        if not gone and not new:
            return self.firsts
        firsts = {of: digest for of, digest in self.firsts.items() if of not in gone}
        return firsts if came is None else {came.revision_key: came.lease.digest} | firsts

    def _check_bounds(self, replica_id: str, lease: ReplicaLease, now: float) -> None:
        """One model's token must not fill the gateway for all."""
        key = lease.namespace, lease.model
        others = [r for r in self.replicas_of(key) if r.replica_id != replica_id]
        if len(others) >= _MAX_REPLICAS:
            raise Invalid("TooManyReplicas", f"a model has {_MAX_REPLICAS} replicas at most")
        own = replica_key(key, replica_id)
        if sum(r.key[0] == key[0] for name, r in self.replicas.items() if name != own) >= _MAX_OF_A_NAMESPACE:
            raise Invalid("TooManyReplicas", f"a namespace's models have {_MAX_OF_A_NAMESPACE} replicas at most in all")
        live = {replica.lease.version for replica in others}
        if len(live | {lease.version}) > _MAX_VERSIONS:
            raise Invalid("TooManyVersions", f"a model has {_MAX_VERSIONS} versions at a time at most")
        # Each version that was there lately has a place in the gateway still, which no other may take yet.
        resting = {version: until for (own, version), until in self.resting.items() if own == key and until > now}
        if (known := self.replicas.get(replica_key(key, replica_id))) is not None:
            resting[known.lease.version] = now + self.rest_seconds
        held = live | set(resting)
        if lease.version not in held and len(held) >= _MAX_VERSIONS:
            free = math.ceil(min(until for version, until in resting.items() if version not in live) - now)
            raise Unavailable(
                "TooManyVersions",
                f"a model has {_MAX_VERSIONS} versions at most, those included that left within {self.rest_seconds:g} s "
                f"and may still have requests under way; try again in {free} s",
            )

    def _with_replicas(
        self, replicas: Mapping[str, Replica], now: float, left: Collection[Replica], came: Replica | None = None
    ) -> Table:
        """The table with other replicas; the versions that none of them has any more begin to rest."""
        version = None if came is None else came.version_key
        resting = {each: until for each, until in self.resting.items() if until > now and each != version}
        for version in {each.version_key for each in left}:
            if not any(each.version_key == version for each in replicas.values()):
                resting[version] = now + self.rest_seconds
        return replace(self, replicas=replicas, resting=resting, firsts=self._first_digests(replicas, left, came))

    def without_replica(self, key: ModelKey, replica_id: str, now: float) -> Table:
        """The table without this replica of a model."""
        own = replica_key(key, replica_id)
        left = self.replicas.get(own)
        if left is None:
            return self
        return self._with_replicas({i: r for i, r in self.replicas.items() if i != own}, now, (left,))

    def with_route(self, route: Route) -> Table:
        """The table with this route.

        Raises:
            Invalid: a name is malformed or a weight is not within 0 to 100.
        """
        check_model(route.namespace, route.model)
        for revision, weight in route.revisions.items():
            if not 0 <= weight <= 100:  # noqa: PLR2004 -- weights are percentages
                raise Invalid("InvalidRoute", f"weight {weight} of revision {revision!r} must be from 0 to 100")
        key = route.namespace, route.model
        table = replace(self, routes={**self.routes, key: route})
        if route.owner and any(_is_foreign(each.uid, route) for each in self.replicas_of(key)):
            # Those of a former deployment of this name; what may be under way to them ends with their requests.
            kept = {i: r for i, r in self.replicas.items() if r.key != key or not _is_foreign(r.uid, route)}
            left = [each for name, each in self.replicas.items() if name not in kept]
            return replace(table, replicas=kept, firsts=self._first_digests(kept, left, None))
        return table

    def with_keys(self, namespace: str, keys: KeySet | None) -> Table:
        """The table with what is told of a namespace's keys; None: nothing is."""
        others = {name: each for name, each in self.told_keys.items() if name != namespace}
        return replace(self, told_keys=others if keys is None else {**others, namespace: keys})

    def without_route(self, key: ModelKey) -> Table:
        """The table without this route."""
        return replace(self, routes={k: r for k, r in self.routes.items() if k != key})

    def without_expired(self, now: float) -> Table:
        """The table without the leases that have ended; this very table where none has."""
        if all(replica.expires_at > now for replica in self.replicas.values()):
            return self
        left = [each for each in self.replicas.values() if each.expires_at <= now]
        return self._with_replicas({i: r for i, r in self.replicas.items() if r.expires_at > now}, now, left)

    def next_expiry(self) -> float | None:
        """When the next lease ends."""
        return min((replica.expires_at for replica in self.replicas.values()), default=None)

    def knows(self, key: ModelKey) -> bool:
        """Whether the model is declared or has a live replica."""
        return key in self.routes or any(replica.key == key for replica in self.replicas.values())

    def keys(self) -> list[ModelKey]:
        """All known models, in order."""
        return sorted({*self.routes, *(replica.key for replica in self.replicas.values())})

    def keys_of(self, namespace: str) -> list[ModelKey]:
        """Known models of one namespace, in order."""
        leased = (each.lease for each in self.replicas.values())
        models = {model for name, model in self.routes if name == namespace}
        models.update(lease.model for lease in leased if lease.namespace == namespace)
        return [(namespace, model) for model in sorted(models)]

    def replicas_of(self, key: ModelKey) -> Iterator[Replica]:
        """The model's replicas."""
        return (replica for replica in self.replicas.values() if replica.key == key)

    def receives(self, replica: Replica) -> bool:
        """Whether requests go to this replica."""
        route, revision = self.routes.get(replica.key), replica.lease.revision
        if route is not None and route.revisions and route.revisions.get(revision, 0) <= 0:
            return False
        return self.has_model(replica)

    def has_model(self, replica: Replica) -> bool:
        """Whether a replica loaded the model that its revision is."""
        route = self.routes.get(replica.key)
        wanted = route.digests.get(replica.lease.revision) if route is not None else None
        if wanted is None:
            return replica.lease.digest == self.firsts.get(replica.revision_key, replica.lease.digest)
        return replica.lease.digest == wanted != ""

    def compares(self, key: ModelKey, revision: str) -> bool:
        """Whether what becomes of a revision's requests is to be known now."""
        comparison = route.comparison if (route := self.routes.get(key)) is not None else None
        return comparison is not None and revision in comparison.revisions

    def statuses(
        self, held: Mapping[ModelKey, int], now: float, unsettled: Collection[ModelKey] = (), *, joining: bool = False
    ) -> list[RouteStatus]:
        """What stands behind each known model now.

        Args:
            held: requests that wait, by model.
            now: on the clock of the leases.
            unsettled: models whose requests do not yet go as was declared.
            joining: whether to say of each replica whether it joins requests.
        """
        grouped: dict[ModelKey, list[Replica]] = {key: [] for key in self.routes}
        for _, replica in sorted(self.replicas.items()):
            grouped.setdefault(replica.key, []).append(replica)
        return [
            self._status_of(key, replicas, held.get(key, 0), now, settled=key not in unsettled, joining=joining)
            for key, replicas in sorted(grouped.items())
        ]

    def status(self, key: ModelKey, held: int, now: float, *, settled: bool) -> RouteStatus:
        """As `statuses`, of one model."""
        replicas = sorted(self.replicas_of(key), key=lambda replica: replica.replica_id)
        return self._status_of(key, replicas, held, now, settled=settled)

    def _status_of(
        self,
        key: ModelKey,
        replicas: Iterable[Replica],
        held: int,
        now: float,
        *,
        settled: bool,
        joining: bool = False,
    ) -> RouteStatus:
        return RouteStatus(
            namespace=key[0],
            model=key[1],
            declared=self.routes.get(key),
            replicas=[self._status(replica, now, joining=joining) for replica in replicas],
            held_requests=held,
            settled=settled,
        )

    def _status(self, replica: Replica, now: float, *, joining: bool) -> RouteReplica:
        return RouteReplica(
            replica_id=replica.replica_id,
            version=replica.lease.version,
            revision=replica.lease.revision,
            digest=replica.lease.digest,
            address=replica.lease.address,
            receiving=self.receives(replica),
            expires_in_seconds=max(0.0, replica.expires_at - now),
            stats=replica.lease.stats,
            joining=replica.lease.joining if joining else None,
            outcomes=replica.lease.outcomes if self.compares(replica.key, replica.lease.revision) else None,
        )


def _is_foreign(uid: str, route: Route | None) -> bool:
    """Whether a token is of another deployment than the one whose route this is. One that does not say may be of any."""
    return bool(uid and route is not None and route.owner and uid != route.owner)
