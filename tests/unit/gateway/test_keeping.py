from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.errors import Invalid
from penstock.routing.access import MAX_KEYS, NamespaceKey, RouteAccess, RouteKey, fingerprint
from penstock.routing.keys import KeyChange, KeySet
from penstock.routing.leases import Route
from penstock_serving.gateway.table.keeping import load_routes, save_routes
from penstock_serving.gateway.table.registry import Registry

KEYS = tuple(RouteKey(name=f"key-number-{each:06}-abc", sha256=fingerprint(str(each))) for each in range(MAX_KEYS))
TOLD = KeySet.from_keys([NamespaceKey(name="a", sha256=fingerprint("a"), deployments=("m",))])


def route(model: str, keys: tuple[RouteKey, ...] = (), **more: object) -> Route:
    return Route(namespace="ns", model=model, access=RouteAccess(required=True, keys=keys), **more)


def test_what_was_declared_is_there_again(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "routes.json")
    registry.declare(route("a", KEYS[:3], revisions={"r": 100}))
    registry.declare(route("b", KEYS[1:4], owner="u"))
    registry.declare(route("c"))
    registry.declare(Route(namespace="other", model="a"))
    registry.change_keys(KeyChange(namespace="ns", added=tuple(TOLD.keys.values()), digest=TOLD.digest))
    registry.change_keys(KeyChange(namespace="locked", digest=KeySet.from_keys([]).digest))
    registry.lock_keys("locked")
    save_routes(tmp_path / "routes.json", registry.table)
    again = Registry(tmp_path / "routes.json")
    assert again.table.routes == registry.table.routes
    assert again.table.told_keys == {"ns": TOLD, "locked": KeySet()}
    first, second = (again.table.routes["ns", model].access for model in "ab")
    assert first is not None
    assert second is not None
    assert first.keys[1] is second.keys[0]


def test_keys_that_many_routes_name_are_written_once(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "routes.json")
    changed = (KEYS[0].model_copy(update={"requests_per_second": 1}), *KEYS[1:])
    sizes = []
    for models, keys in ((range(2), KEYS), (range(12), KEYS), (range(6), changed)):
        for model in models:
            registry.declare(route(f"m{model}", tuple(each.model_copy() for each in keys)))
        save_routes(tmp_path / "routes.json", registry.table)
        sizes.append((tmp_path / "routes.json").stat().st_size)
    # Ten more models, and then one key of which two things are said, are each but a little more.
    assert sizes[0] < 1 << 20
    assert sizes[1] - sizes[0] < 10 * 512
    assert sizes[2] - sizes[1] < 32 * 1024
    assert len({id(each.access.keys) for each in registry.table.routes.values() if each.access}) == 2


def test_what_a_former_release_wrote_is_read(tmp_path: Path) -> None:
    written = [
        {"namespace": "ns", "model": "m", "access": {"required": True, "keys": [KEYS[0].model_dump(mode="json")]}}
    ]
    (tmp_path / "routes.json").write_text(json.dumps(written))
    assert load_routes(tmp_path / "routes.json").routes == {("ns", "m"): route("m", KEYS[:1])}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '[{"namespace": 1}]',
        '{"version": 3, "routes": []}',
        '{"routes": [{"namespace": "a", "model": "m", "access": {"required": true}}], "named": {"a": {"models": {"m": 7}}}}',
    ],
    ids=["no JSON", "no route", "of a later release", "a place that is not there"],
)
def test_what_is_damaged_is_said_to_be(text: str, tmp_path: Path) -> None:
    (tmp_path / "routes.json").write_text(text)
    with pytest.raises(Invalid, match="is damaged"):
        load_routes(tmp_path / "routes.json")
