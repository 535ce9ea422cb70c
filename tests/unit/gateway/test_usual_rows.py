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
    assert usual_rows({path: WAY}, {}, {}, "home") == dict.fromkeys(spelled, "-10990000|m3||||||ns/token")


@pytest.mark.parametrize(
    ("lock", "kind"),
    [(None, 1), ("k|0", 2), ("j|0", 3), ("-|5", None), ("k|5", None), ("j|5", None), ("?|0", None)],
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
def test_a_model_has_a_row_where_only_who_asks_is_to_be_found(lock: str | None, kind: int | None) -> None:
    for backend, more in (("m3", 0), ("w3", 3), ("s3", 3)):
        way = Way(backend, 0, "ns/token")
        rows = usual_rows({"ns/m": way}, {} if lock is None else {"ns/m": lock}, {}, "home")
        assert [row[:2] for row in rows.values()] == ([f"-{kind + more}"] if kind else [])


@pytest.mark.parametrize(
    ("kept", "number"), [(0, -11_000_000), (1, -10_999_999), (999_999, -10_000_001), (1_000_000, -10_000_000)]
)
def test_a_draw_less_a_rows_number_is_in_the_kinds_first_million_where_the_trace_is_kept(
    kept: int, number: int
) -> None:
    (row,) = usual_rows({"ns/m": Way("m3", kept, "ns/token")}, {}, {}, "home").values()
    assert int(row.partition("|")[0]) == number
    assert [draw - number < 11_000_000 for draw in (0, kept - 1, kept, 999_999) if 0 <= draw < 1_000_000] == [
        draw < kept for draw in (0, kept - 1, kept, 999_999) if 0 <= draw < 1_000_000
    ]


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
