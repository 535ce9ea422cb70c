"""Whether models would answer a request, and why not: what readiness and the index of models say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from penstock.protocol.repository import IndexEntry
from penstock.routing.table import ModelKey, Table

ASLEEP = "it has no replica now; a request starts one"


def find_problem(table: Table, key: ModelKey) -> str | None:
    """Why the model's replicas cannot start, where the operator says so."""
    route = table.routes.get(key)
    if route is None or route.unavailable is None:
        return None
    return f"model '{key[1]}' cannot be served now: {route.unavailable}"


def can_wake(table: Table, key: ModelKey) -> bool:
    """Whether a model without a replica would answer: one that is asleep would, since a request wakes it."""
    route = table.routes.get(key)
    return route is not None and route.unavailable is None and route.wake_url is not None


def describe_missing(table: Table, key: ModelKey) -> str:
    """Why a model without a replica does not answer."""
    return find_problem(table, key) or f"no replica of model '{key[1]}' is ready yet"


def list_index(
    table: Table, keys: Iterable[ModelKey], told_version: Callable[[ModelKey], str | None]
) -> Iterator[IndexEntry]:
    """An entry for each version of each model that has replicas, and one for each model without.

    Args:
        table: leases and routes.
        keys: of the models that are asked about.
        told_version: the version that a model without a replica had last, where that is known.
    """
    versions: dict[ModelKey, set[str]] = {key: set() for key in keys}
    for replica in table.replicas.values():
        found = versions.get(replica.key)
        if found is not None and table.receives(replica):
            found.add(replica.lease.version)
    for key, found in versions.items():
        if found:
            yield from (IndexEntry(key[1], version, ready=True) for version in sorted(found))
        elif can_wake(table, key):
            yield IndexEntry(key[1], told_version(key), ready=True, reason=ASLEEP)
        else:
            yield IndexEntry(key[1], told_version(key), ready=False, reason=describe_missing(table, key))
