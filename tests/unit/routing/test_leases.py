from __future__ import annotations

import pytest
from pydantic import ValidationError
from tests.telling import telling

from penstock.errors import Invalid
from penstock.routing.leases import MOST_CHARACTERS, ReplicaLease, check_replica_id

LEASE = {
    "namespace": "vision",
    "model": "digits",
    "version": "1",
    "revision": "v1" + "0" * 10,
    "digest": "sha256:" + "0" * 64,
    "address": "[2001:db8:ffff:ffff:ffff:ffff:255.255.255.255]:65535",
}


def test_the_texts_of_a_replica_of_ours_fit_into_a_lease() -> None:
    assert ReplicaLease.model_validate(LEASE).model_dump(include=set(LEASE)) == LEASE
    check_replica_id("x1y2z3a4")


@pytest.mark.parametrize("name", [name for name, field in ReplicaLease.model_fields.items() if field.annotation is str])
def test_no_text_of_a_lease_is_longer_than_a_name(name: str) -> None:
    ReplicaLease.model_validate(LEASE | {name: "a" * MOST_CHARACTERS})
    with pytest.raises(ValidationError, match="at most 253 characters"):
        ReplicaLease.model_validate(LEASE | {name: "a" * (MOST_CHARACTERS + 1)})


def test_no_id_of_a_replica_is_longer_than_a_name() -> None:
    check_replica_id("a" * MOST_CHARACTERS)
    with pytest.raises(Invalid, match=telling("253 254")):
        check_replica_id("a" * (MOST_CHARACTERS + 1))


@pytest.mark.parametrize(
    "said",
    [
        pytest.param('"stats":{"inFlight":NaN}', id="statistics that are no number"),
        pytest.param('"stats":{"idleSeconds":1e999}', id="or one without an end"),
        pytest.param('"outcomes":{"cpuSeconds":NaN}', id="outcomes likewise"),
        pytest.param('"outcomes":{"shadow":{"twinLossSum":-1e999}}', id="and those of samples"),
        pytest.param('"outcomes":{"shadow":{"worst":[{"at":NaN,"loss":0,"twinLoss":0}]}}', id="and each sample"),
        pytest.param('"outcomes":{"seconds":{"141":1}}', id="a bucket that there cannot be"),
        pytest.param('"outcomes":{"shadow":{"excess":{"16":1}}}', id="and of losses likewise"),
        pytest.param('"outcomes":{"seconds":{"3":-1}}', id="a count below nothing"),
    ],
)
def test_a_replica_cannot_say_what_the_operator_could_not_read(said: str) -> None:
    lease = ReplicaLease.model_validate(LEASE).model_dump_json(exclude_none=True, exclude={"stats"})
    ReplicaLease.model_validate_json(lease)
    with pytest.raises(ValidationError):
        ReplicaLease.model_validate_json(f"{lease[:-1]},{said}}}")
