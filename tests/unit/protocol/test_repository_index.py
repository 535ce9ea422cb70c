from __future__ import annotations

import json

import pytest

from penstock.errors import Invalid
from penstock.protocol.refusals import status_of
from penstock.protocol.repository import IndexEntry, read_index_request, write_index
from penstock.routing.leases import ReplicaLease, Route
from penstock.routing.table import Table
from penstock_serving.gateway.table.standing import list_index


@pytest.mark.parametrize(
    ("body", "ready_only"),
    [
        (b"", False),
        (b" \n", False),
        (b"{}", False),
        (b'{"ready": null}', False),
        (b'{"ready": false}', False),
        (b'{"ready": true}', True),
        (b'{"ready": true, "repository_name": ""}', True),
    ],
)
def test_which_models_are_asked_for(body: bytes, *, ready_only: bool) -> None:
    assert read_index_request(body) is ready_only


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b"true", b'{"ready": 1}', b'{"ready": "true"}', b"\xff"])
def test_another_body_gets_400(body: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        read_index_request(body)
    assert status_of(refused.value) == 400


def test_an_index_leaves_out_what_is_not_ready_where_that_is_asked() -> None:
    entries = [IndexEntry("a", "1", ready=True), IndexEntry("b", None, ready=False, reason="why")]
    wanted = [
        {"name": "a", "version": "1", "state": "READY", "reason": ""},
        {"name": "b", "state": "UNAVAILABLE", "reason": "why"},
    ]
    assert json.loads(write_index(entries, ready_only=False)) == wanted
    assert json.loads(write_index(entries, ready_only=True)) == wanted[:1]


def table(*leases: tuple[str, str, str], **routes: dict[str, object]) -> Table:
    """Leases as (model, version, revision), and routes by model."""
    found = Table()
    for model, fields in routes.items():
        found = found.with_route(Route.model_validate({"namespace": "ns", "model": model, **fields}))
    for number, (model, version, revision) in enumerate(leases):
        lease = ReplicaLease(namespace="ns", model=model, version=version, revision=revision, address="127.0.0.1:1")
        found = found.with_lease(f"r{number}", lease, 0.0)
    return found


WAKES = {"wakeUrl": "http://serve/wake"}


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        pytest.param(table(("m", "1", "a")), [("1", True, "")], id="a replica"),
        pytest.param(table(("m", "1", "a"), ("m", "1", "b")), [("1", True, "")], id="two of one version"),
        pytest.param(table(("m", "2", "b"), ("m", "1", "a")), [("1", True, ""), ("2", True, "")], id="two versions"),
        pytest.param(
            table(("m", "2", "b"), ("m", "1", "a"), m={"revisions": {"b": 100}}), [("2", True, "")], id="one gets none"
        ),
        pytest.param(table(m=WAKES), [("9", True, "a request starts one")], id="asleep"),
        pytest.param(table(m={}), [("9", False, "no replica of model 'm' is ready yet")], id="starting"),
        pytest.param(
            table(m={**WAKES, "unavailable": "no node fits"}),
            [("9", False, "model 'm' cannot be served now: no node fits")],
            id="cannot start",
        ),
    ],
)
def test_how_a_model_stands(known: Table, expected: list[tuple[str, bool, str]]) -> None:
    found = list(list_index(known, [("ns", "m")], lambda _: "9"))
    assert [(each.version, each.ready) for each in found] == [each[:2] for each in expected]
    for entry, (_, _, reason) in zip(found, expected, strict=True):
        assert reason in entry.reason


def test_models_that_are_not_asked_about_are_not_listed() -> None:
    known = table(("m", "1", "a"), ("other", "1", "a"), sleeping=WAKES)
    assert [each.name for each in list_index(known, [("ns", "sleeping"), ("ns", "m")], lambda _: None)] == [
        "sleeping",
        "m",
    ]
