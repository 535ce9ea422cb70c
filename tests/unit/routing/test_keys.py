from __future__ import annotations

import pytest
from tests.telling import telling

from penstock.errors import Conflict, Invalid
from penstock.routing.access import MAX_KEYS, MAX_NAMED, NamespaceKey, RouteKey, fingerprint
from penstock.routing.keys import MOST_KEY_BYTES, MOST_PAIRS, KeyChange, KeyInterner, KeySet


def key(secret: str, **more: object) -> NamespaceKey:
    return NamespaceKey.model_validate({"name": secret.lower(), "sha256": fingerprint(secret), **more})


A, B, C = key("A"), key("B"), key("C", deployments=("m",))
BEFORE = KeySet.from_keys([A, B])


def test_a_digest_is_of_all_that_is_said_of_all_keys() -> None:
    assert KeySet.from_keys([A, B]).digest == KeySet.from_keys([B, A]).digest
    others = [[A], [A, B, C], [A, key("B", requestsPerSecond=2)], [A, key("B", deployments=("m",))], []]
    assert len({BEFORE.digest, *(KeySet.from_keys(each).digest for each in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("wanted", "added", "removed"),
    [
        pytest.param([A, B], [], [], id="nothing"),
        pytest.param([A, B, C], [C], [], id="one that came"),
        pytest.param([A], [], [B], id="one that went"),
        pytest.param([key("A", requestsPerSecond=1), B], [key("A", requestsPerSecond=1)], [], id="one that is another"),
    ],
)
def test_a_change_says(wanted: list[NamespaceKey], added: list[NamespaceKey], removed: list[NamespaceKey]) -> None:
    change = BEFORE.change_to(KeySet.from_keys(wanted), "ns", known=BEFORE.digest)
    assert (list(change.added), list(change.removed)) == (added, [each.sha256 for each in removed])
    assert BEFORE.apply(change) == KeySet.from_keys(wanted)


@pytest.mark.parametrize("known", ["", "0" * 64], ids=["it knows nothing", "it knows others"])
def test_all_is_told_where_a_gateway(known: str) -> None:
    change = BEFORE.change_to(KeySet.from_keys([A, C]), "ns", known=known)
    assert change.base == ""
    assert KeySet.from_keys([B]).apply(change) == KeySet.from_keys([A, C])


def test_a_change_of_other_keys_is_not_taken() -> None:
    change = BEFORE.change_to(KeySet.from_keys([A]), "ns", known=BEFORE.digest)
    for held in (KeySet(), KeySet.from_keys([A, B, C])):
        with pytest.raises(Conflict, match="known here"):
            held.apply(change)


def test_what_is_not_what_is_said_is_not_taken() -> None:
    with pytest.raises(Invalid, match="not of"):
        BEFORE.apply(KeyChange(namespace="ns", added=(A,), digest=BEFORE.digest))
    many = KeySet.from_keys(key(str(each)) for each in range(MAX_KEYS))
    more = many.change_to(KeySet.from_keys([*many.keys.values(), A]), "ns", known=many.digest)
    with pytest.raises(Invalid, match=telling("4096 keys")):
        many.apply(more)
    wordy = KeySet.from_keys(
        key(str(each), deployments=[f"m{name}" for name in range(64)]) for each in range(MAX_NAMED // 64)
    )
    more = wordy.change_to(
        KeySet.from_keys([*wordy.keys.values(), key("a", deployments=["m0"])]), "ns", known=wordy.digest
    )
    with pytest.raises(Invalid, match=telling("8192 deployments")):
        wordy.apply(more)


def test_no_key_is_longer_than_a_message_has_room_for() -> None:
    longest = NamespaceKey(
        name="k" * 253,
        sha256="f" * 64,
        expires_at=253_402_300_799,
        requests_per_second=100_000,
        deployments=tuple("d" * 37 + f"{each:03}" for each in range(64)),
    )
    assert len(longest.model_dump_json()) < MOST_KEY_BYTES


def test_what_routes_name_is_kept_once() -> None:
    interned = KeyInterner()

    def named() -> tuple[RouteKey, ...]:
        return tuple(RouteKey(name=f"k{each}", sha256=fingerprint(str(each))) for each in range(9))

    one, other = interned(named()), interned((*named(), RouteKey(name="x", sha256=fingerprint("x"))))
    assert interned(named()) is one
    assert all(mine is theirs for mine, theirs in zip(one, other, strict=False))
    interned.prune([one, other])
    assert interned(named()) is one


def test_routes_name_only_so_many_different_sets_of_keys() -> None:
    interned = KeyInterner()
    every = tuple(RouteKey(name=f"k{each}", sha256=fingerprint(str(each))) for each in range(MAX_KEYS))
    sets = [interned(every[: MAX_KEYS - each]) for each in range(17)]
    interned.prune(sets[:16] + sets[:16])
    with pytest.raises(Invalid, match=telling(f"{MOST_PAIRS} keys")):
        interned.prune(sets)
