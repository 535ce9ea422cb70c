"""Which requests have a row by which HAProxy decides them at once, and in which order such rows come and go."""

from __future__ import annotations

import pytest

from penstock_serving.gateway.haproxy.plan import DesiredState, Maps, ObservedServer, ObservedState, Server, plan
from penstock_serving.gateway.haproxy.usual import Way, usual_rows

WAY = Way("m3", 10_000, "ns/token")


@pytest.mark.parametrize(
    ("path", "spelled"),
    [
        ("ns/m", ["/ns/v2/models/m/infer"]),
        ("ns/m/1", ["/ns/v2/models/m/versions/1/infer"]),
        ("home/m", ["/home/v2/models/m/infer", "/v2/models/m/infer"]),
        ("home/m/1", ["/home/v2/models/m/versions/1/infer", "/v2/models/m/versions/1/infer"]),
    ],
    ids=["of a model", "of a version", "of the default namespace", "of a version there"],
)
def test_all_spellings_of_a_path_have_a_row(path: str, spelled: list[str]) -> None:
    assert usual_rows({path: WAY}, {}, {}, "home") == dict.fromkeys(spelled, "0010000om3|||||ns/token")


@pytest.mark.parametrize(
    ("lock", "kind"),
    [(None, "o"), ("k|0", "k"), ("j|0", "k"), ("-|5", None), ("k|5", None), ("j|5", None), ("?|0", None)],
    ids=[
        "open",
        "a key is asked for",
        "a key or a token is asked for",
        "open, and callers are bounded",
        "a key is asked for, and callers are bounded",
        "a token may do, and callers are bounded",
        "nobody has said yet",
    ],
)
def test_a_model_has_a_row_where_only_who_asks_is_to_be_found(lock: str | None, kind: str | None) -> None:
    rows = usual_rows({"ns/m": WAY}, {} if lock is None else {"ns/m": lock}, {}, "home")
    assert [row[7] for row in rows.values()] == ([kind] if kind else [])


@pytest.mark.parametrize(
    ("key", "grant", "rows"),
    [
        ("ns/AB", "key/a|0|0|*", {"AB@ns": "key/a"}),
        ("ns/AB", "key/a|5|0|*", {}),
        ("ns/AB", "key/a|0|1795226437|*", {}),
        ("ns/AB", "key/a|0|0|-", {}),
        ("ns/m/AB", "key/a|0|0|*", {}),
    ],
    ids=[
        "it opens all, without limit or end",
        "it has a limit",
        "it ends",
        "it opens some models",
        "it is of one model",
    ],
)
def test_a_key_has_a_row_where(key: str, grant: str, rows: dict[str, str]) -> None:
    assert usual_rows({}, {}, {key: grant}, "home") == rows


def test_no_row_names_a_backend_that_does_not_fit() -> None:
    assert usual_rows({"ns/m": Way("m1234567", 0, "ns/t")}, {}, {}, "home") == {}


def test_what_decides_usual_requests_goes_before_anything_changes_and_comes_when_all_has() -> None:
    was = ObservedState(
        {"m0": {"ra": ObservedServer(256, maintenance=False)}, "w0": {}},
        {"ns/m": "m0|0"},
        {},
        {"ns/AB": "key/a|0|0|*"},
        {"/ns": "open", "AB@ns": "key/a", "same": "row"},
    )
    wanted = DesiredState(
        {"w0": {"rb": Server("h:1", 256)}}, {"ns/m": "w0|0"}, {"ns/m": "k|0"}, {}, {"/ns": "keyed", "same": "row"}
    )
    changes = plan(wanted, was, Maps("/m", "/l", "/g", "/u")).changes
    assert changes[:2] == ("del map /u /ns", "del map /u AB@ns")
    assert changes[-2:] == ("add map /u /ns keyed", "set server m0/ra state maint")
    assert all(" /u " not in change for change in changes[2:-2])
