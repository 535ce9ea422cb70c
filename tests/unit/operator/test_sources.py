"""Who looks again when an object changes or goes, and that nothing is kept of what went."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from penstock_operator.keys.directory import DeploymentsOfKey
from penstock_operator.quota.sources import DeploymentsOfQuota, QuotasOfDeployment
from penstock_operator.runtime.cluster import Key, Manifest
from penstock_operator.sources import OwnersOfRun, PoolOfDeployment, UsersOfPool

OWNER = {"apiVersion": "penstock.dev/v1alpha1", "kind": "InferenceDeployment", "name": "one", "uid": "u"}
ONE: Manifest = {
    "metadata": {"name": "one", "namespace": "vision", "uid": "1", "generation": 1, "ownerReferences": [OWNER]},
    "spec": {"poolRef": {"name": "one"}},
}
KEY = Key("vision", "one")
There = Callable[[Key], bool]


def listed(*_: Any) -> list[Manifest]:
    return [ONE]


SOURCES: list[tuple[str, Callable[[There], Callable[[Manifest], Iterable[Key]]]]] = [
    ("the users of a pool", lambda there: UsersOfPool(listed, there)),
    ("the owner of a run", OwnersOfRun),
    ("the pool of a deployment", PoolOfDeployment),
    ("the deployments that a quota counts", lambda there: DeploymentsOfQuota(listed, there)),
    ("the quotas of a deployment", lambda there: QuotasOfDeployment(listed, there)),
    ("the deployments of a key", lambda there: DeploymentsOfKey(listed, there)),
]


@pytest.mark.parametrize("source", [row[1] for row in SOURCES], ids=[row[0] for row in SOURCES])
def test_look_again_when_it_comes_and_when_it_goes(
    source: Callable[[There], Callable[[Manifest], Iterable[Key]]],
) -> None:
    present = {KEY}
    keys = source(present.__contains__)

    def told() -> list[Key]:
        return list(keys(ONE))

    assert told() == [KEY]
    assert told() == [], "nothing that matters changed"
    present.clear()
    assert told() == [KEY], "it went"
    assert told() == [], "a deletion is told with the last copy"
    present.add(KEY)
    assert told() == [KEY], "what it was before it went is forgotten"
