"""The suite over several workers: what shares a costly part stays together, every other file is a unit, long ones first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.distribution import API_SERVER, LAST, RAY, is_last_of_api_server, is_last_user, rank, unit_of


@pytest.mark.parametrize(
    ("test", "unit"),
    [
        ("tests/unit/a/test_a.py::test_one", "tests/unit/a/test_a.py"),
        ("tests/unit/a/test_a.py::TestAll::test_one[x]", "tests/unit/a/test_a.py"),
        ("tests/unit/a/test_a.py::test_one[me@example.com::x]", "tests/unit/a/test_a.py"),
        ("tests/integration/building/test_built_variants.py::test_one", "tests/integration/building"),
        ("tests/integration/building/test_prepared_sources.py::test_one", "tests/integration/building"),
        ("tests/e2e/cluster/test_no_request_lost.py::test_while[a]", LAST),
        ("tests/e2e/cluster/test_no_request_lost_with_redis.py::test_while[b]", LAST),
    ],
    ids=[
        "a file is a unit",
        "a class is no unit of its own",
        "what a parameter says is no group",
        "what builds from one source is one unit",
        "whose files are two",
        "what breaks what others share is one unit",
        "in whichever file",
    ],
)
def test_tests_are_handed_out_in_units(test: str, unit: str) -> None:
    assert unit_of(test) == unit


def test_all_files_whose_tests_come_last_are_that_unit() -> None:
    root = Path(__file__).parents[3]
    marked = [path for path in (root / "tests" / "e2e").rglob("test_*.py") if "pytest.mark.last" in path.read_text()]
    assert len(marked) == 2
    assert {unit_of(path.relative_to(root).as_posix()) for path in marked} == {LAST}


def test_all_files_that_want_the_same_ray_are_a_unit() -> None:
    root = Path(__file__).parents[3]
    files = {path.relative_to(root).as_posix(): path.read_text() for path in (root / "tests").rglob("test_*.py")}
    del files[Path(__file__).relative_to(root).as_posix()]
    users = {name for name, text in files.items() if "ray_head: LocalRay" in text or "penstock: Platform" in text}
    assert len(users) == 3
    assert {unit_of(name) for name in users} == {RAY}


@pytest.mark.parametrize(
    ("following", "last"),
    [
        pytest.param(None, True, id="the last test of all"),
        pytest.param(("a", ["ray_head"]), False, id="the next of the file uses it"),
        pytest.param(("a", []), False, id="the next of the file does not: a later one may"),
        pytest.param(("b", ["ray_head"]), False, id="the next file uses it"),
        pytest.param(("b", ["tmp_path"]), True, id="the next file does not"),
        pytest.param(("b", None), True, id="what comes next has no fixtures"),
    ],
)
def test_ray_ends_with_the_last_file_in_a_row_that_uses_it(following: Any, last: bool) -> None:  # noqa: FBT001 (a table)
    def item(path: str, names: list[str] | None) -> Any:
        return SimpleNamespace(path=path, **({} if names is None else {"fixturenames": names}))

    found = is_last_user("ray_head", item("a", ["ray_head"]), None if following is None else item(*following))
    assert found is last


@pytest.mark.parametrize(
    ("following", "last"),
    [
        pytest.param(None, True, id="none follows"),
        pytest.param(("a", False, []), False, id="the same file's goes on"),
        pytest.param(("b", True, []), False, id="another file's is marked"),
        pytest.param(("b", False, ["control_plane_binary"]), False, id="another file's names it"),
        pytest.param(("b", False, ["tmp_path"]), True, id="another file's has no use for it"),
    ],
)
def test_an_api_server_ends_with_the_last_file_in_a_row_that_uses_one(following: Any, last: bool) -> None:  # noqa: FBT001 (a table)
    def item(path: str, marked: bool, names: list[str]) -> Any:  # noqa: FBT001 (a table)
        marks = ["apiserver"] if marked else []
        return SimpleNamespace(path=path, fixturenames=names, get_closest_marker=lambda mark: mark in marks or None)

    assert is_last_of_api_server(item("a", True, []), None if following is None else item(*following)) is last


def test_the_longest_units_come_first() -> None:
    units = [
        RAY, "tests/integration/test_standalone_run.py", "tests/contract/test_serve_rest_contract.py", API_SERVER,
        "tests/integration/test_a.py", "tests/integration/building/test_b.py", "tests/stores/test_a.py", "tests/contract/test_a.py", "tests/unit/a/test_a.py", LAST,
    ]  # fmt: skip
    found = sorted(set(units), key=rank)
    assert found[:4] == units[:4]
    assert found[-1] == units[-1]
    files = [unit for unit in units[:4] if unit.endswith(".py")]
    assert files == [name for name in files if (Path(__file__).parents[3] / name).is_file()]
