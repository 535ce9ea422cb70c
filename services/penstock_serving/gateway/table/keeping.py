"""What was declared, on disk: each key once, however many routes name it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from penstock.errors import Invalid
from penstock.models import Frozen
from penstock.routing.access import NamespaceKey, RouteKey
from penstock.routing.keys import KeySet
from penstock.routing.leases import Route
from penstock.routing.table import Table
from penstock_runtime.atomic import write_atomically

_ROUTES: TypeAdapter[list[Route]] = TypeAdapter(list[Route])


class _Named(Frozen):
    """Keys that routes of one namespace name."""

    keys: list[RouteKey] = Field(default=[])
    sets: list[list[int]] = Field(default=[])
    """Places in `keys`."""
    models: dict[str, int] = Field(default={})
    """Places in `sets`, of the models that name any."""


class _Kept(Frozen):
    """The file. A former release wrote the list of routes alone."""

    version: Literal[2] = 2
    routes: list[Route]
    """Without the keys that they name."""
    named: Annotated[dict[str, _Named], Field(default={})]
    told: Annotated[dict[str, list[NamespaceKey] | None], Field(default={})]
    """Keys of namespaces as they were told for themselves; null: they are to be told anew."""


def load_routes(path: Path) -> Table:
    """A table with what was declared before.

    Raises:
        Invalid: the file is not what `save_routes` wrote, here or in a former release.
    """
    if not path.exists():
        return Table()
    written = path.read_bytes()
    try:
        if written.lstrip()[:1] == b"[":
            return _to_table(_Kept(routes=_ROUTES.validate_json(written), named={}, told={}))
        return _to_table(_Kept.model_validate_json(written))
    except (ValueError, IndexError) as error:
        raise Invalid(
            "InvalidState", f"{path} is damaged; remove it, the operator declares all again: {error}"
        ) from error


def save_routes(path: Path, table: Table) -> None:
    """Write what was declared such that a crash leaves the old or the new file, whole."""
    write_atomically(path, _from_table(table).model_dump_json().encode())


def _to_table(kept: _Kept) -> Table:
    table = Table()
    sets = {
        namespace: [tuple(named.keys[place] for place in each) for each in named.sets]
        for namespace, named in kept.named.items()
    }
    for route in kept.routes:
        named = kept.named.get(route.namespace)
        place = None if named is None else named.models.get(route.model)
        if place is not None and route.access is not None:
            access = route.access.model_copy(update={"keys": sets[route.namespace][place]})
            table = table.with_route(route.model_copy(update={"access": access}))
        else:
            table = table.with_route(route)
    for namespace, keys in kept.told.items():
        table = table.with_keys(namespace, KeySet() if keys is None else KeySet.from_keys(keys))
    return table


def _from_table(table: Table) -> _Kept:
    routes: list[Route] = []
    named: dict[str, _Named] = {}
    places: dict[str, dict[int, int]] = {}
    sets: dict[str, dict[int, int]] = {}
    for route in table.routes.values():
        if route.access is None or not route.access.keys:
            routes.append(route)
            continue
        routes.append(route.model_copy(update={"access": route.access.model_copy(update={"keys": ()})}))
        mine = named.setdefault(route.namespace, _Named(keys=[], sets=[], models={}))
        # Equal keys and sets are the same objects here.
        place_of = places.setdefault(route.namespace, {})
        set_of = sets.setdefault(route.namespace, {})
        if id(route.access.keys) not in set_of:
            for key in route.access.keys:
                if id(key) not in place_of:
                    place_of[id(key)] = len(mine.keys)
                    mine.keys.append(key)
            set_of[id(route.access.keys)] = len(mine.sets)
            mine.sets.append([place_of[id(key)] for key in route.access.keys])
        mine.models[route.model] = set_of[id(route.access.keys)]
    told = {namespace: list(keys.keys.values()) if keys.digest else None for namespace, keys in table.told_keys.items()}
    return _Kept(routes=routes, named=named, told=told)
