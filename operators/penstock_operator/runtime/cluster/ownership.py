"""Server-side apply, as a pure function: who owns which field, and what a new apply makes of an object.

A subset of Kubernetes' rules, enough for the embedded cluster: maps merge field by field; lists are taken whole, except
those that Kubernetes merges by key and Penstock uses.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

Tree = dict[str, Any]
Path = tuple[str, ...]

_KEYED = {("metadata", "ownerReferences"): "uid", ("status", "conditions"): "type"}
_SETS = {("metadata", "finalizers")}


def merge(live: Tree, owned: Mapping[str, Tree], manager: str, wanted: Tree) -> tuple[Tree, dict[str, Tree]]:
    """Apply `wanted` as `manager`, by force.

    Args:
        live: the object as it is.
        owned: for each manager, the fields that it applied last, as a tree.
        manager: who applies.
        wanted: the fields to apply.

    Returns:
        The new object, and what each manager owns now. Fields that `manager` owned and no longer wants are gone, unless
        another manager owns them too; fields that others own with another value are now owned by `manager` alone.
    """
    leaves = dict(_leaves(_unfold(wanted)))
    others = {name: dict(_leaves(_unfold(tree))) for name, tree in owned.items() if name != manager}
    result = _unfold(live)
    for path in dict(_leaves(_unfold(owned.get(manager, {})))):
        if path not in leaves and not any(path in tree for tree in others.values()):
            _remove(result, _find_forsaken(path, {*leaves}.union(*others.values())))
    for path, value in leaves.items():
        _put(result, path, value)
    now_owned = {
        name: _fold(_tree({path: value for path, value in tree.items() if leaves.get(path, value) == value}))
        for name, tree in others.items()
    }
    now_owned[manager] = copy.deepcopy(wanted)
    return _fold(result), now_owned


def _find_forsaken(path: Path, owned: set[Path]) -> Path:
    """What goes with a field that nobody owns any more: the outermost map of the spec in which nobody owns anything.

    Defaults, which have no owner, are not left behind in it.
    """
    outer = (path[:length] for length in range(2, len(path)) if path[0] == "spec")
    return next((each for each in outer if not any(kept[: len(each)] == each for kept in owned)), path)


def _leaves(tree: Tree, prefix: Path = ()) -> Iterator[tuple[Path, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def _tree(leaves: Mapping[Path, Any]) -> Tree:
    tree: Tree = {}
    for path, value in leaves.items():
        _put(tree, path, value)
    return tree


def _put(tree: Tree, path: Path, value: Any) -> None:
    *parents, last = path
    for name in parents:
        child = tree.get(name)
        if not isinstance(child, dict):
            child = tree[name] = {}
        tree = child
    if value == {} and isinstance(tree.get(last), dict):
        return  # an empty map adds nothing to a map
    tree[last] = copy.deepcopy(value)


def _remove(tree: Tree, path: Path) -> None:
    """Remove a field, and the maps that it leaves empty."""
    name, *rest = path
    if not rest:
        tree.pop(name, None)
        return
    child = tree.get(name)
    if isinstance(child, dict):
        _remove(child, tuple(rest))
        if not child:
            del tree[name]


def _unfold(manifest: Tree) -> Tree:
    """A copy in which lists that merge by key are maps."""
    tree = copy.deepcopy(manifest)
    for path in (*_KEYED, *_SETS):
        parent = tree.get(path[0])
        items = parent.get(path[1]) if isinstance(parent, dict) else None
        if isinstance(parent, dict) and isinstance(items, list):
            key = _KEYED.get(path)
            parent[path[1]] = {item if key is None else item[key]: item for item in items if _fits(item, key)}
    return tree


def _fits(item: Any, key: str | None) -> bool:
    """Whether an item of such a list can be told from others; one that cannot is left out."""
    return isinstance(item, str) if key is None else isinstance(item, dict) and isinstance(item.get(key), str)


def _fold(tree: Tree) -> Tree:
    """The inverse of `_unfold`."""
    for path in (*_KEYED, *_SETS):
        parent = tree.get(path[0])
        items = parent.get(path[1]) if isinstance(parent, dict) else None
        if isinstance(parent, dict) and isinstance(items, dict):
            parent[path[1]] = list(items.values())
    return tree
