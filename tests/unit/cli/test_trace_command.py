"""`penstock trace` on a file of collected spans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.errors import Invalid, PenstockError, Unavailable
from penstock_cli.main import app
from penstock_cli.traces.reading import wait_for_trace

START = 1_700_000_000_000_000_000
FAST, SLOW, LAST, BATCH = "aa" * 16, "ab" * 16, "cd" * 16, "ee" * 16


def span(trace: str, name: str, number: int, milliseconds: int, **more: object) -> dict[str, object]:
    begin = START + number * 1_000_000_000
    return {
        "traceId": trace,
        "spanId": f"{number:016x}",
        "name": name,
        "startTimeUnixNano": str(begin),
        "endTimeUnixNano": str(begin + milliseconds * 1_000_000),
        "attributes": [{"key": "penstock.model.name", "value": {"stringValue": "digits"}}],
        **more,
    }


def write(path: Path, *spans: dict[str, object]) -> None:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "penstock-gateway"}}]}
    lines = [{"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [each]}]}]} for each in spans]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "traces.jsonl"
    write(
        path,
        span(FAST, "gateway", 1, 2),
        span(SLOW, "gateway", 2, 90, status={"code": 2, "message": "boom"}),
        span(LAST, "gateway", 3, 5),
        span(BATCH, "batch", 4, 500),
    )
    return path


@pytest.mark.parametrize(
    ("arguments", "trace"),
    [
        pytest.param([], LAST, id="the last without options"),
        pytest.param(["--last"], LAST, id="the last"),
        pytest.param(["--slowest"], SLOW, id="the slowest request, not the slower batch"),
        pytest.param(["AA" * 3], FAST, id="by how its id begins, in any case"),
    ],
)
def test_which_is_shown(file: Path, arguments: list[str], trace: str) -> None:
    result = CliRunner().invoke(app, ["trace", *arguments, "--file", str(file)])
    heading, line = result.output.splitlines()
    assert heading.startswith(f"trace {trace}  (digits, ")
    assert line.startswith("gateway  gateway  █")


def test_a_failure_is_shown(file: Path) -> None:
    assert "failed: boom" in CliRunner().invoke(app, ["trace", "--slowest", "--file", str(file)]).output


def test_the_list_is_oldest_first_and_without_batches(file: Path) -> None:
    lines = CliRunner().invoke(app, ["trace", "--list", "--file", str(file)]).output.splitlines()
    assert [line.split()[0] for line in lines] == [FAST, SLOW, LAST]
    assert lines[1].endswith("failed")


def test_a_rollout_is_listed_and_is_no_request(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    write(path, span(FAST, "gateway", 1, 2), span(SLOW, "rollout", 2, 38_000))
    for chosen in ("--slowest", "--last"):
        assert CliRunner().invoke(app, ["trace", chosen, "--file", str(path)]).output.startswith(f"trace {FAST}")
    assert CliRunner().invoke(app, ["trace", SLOW, "--file", str(path)]).output.startswith(f"trace {SLOW}")
    lines = CliRunner().invoke(app, ["trace", "--list", "--file", str(path)]).output.splitlines()
    assert [line.split()[0] for line in lines] == [FAST, SLOW]


def test_what_was_rotated_is_read_too(file: Path) -> None:
    file.rename(file.with_name("traces.jsonl.1"))
    write(file, span("12" * 16, "gateway", 9, 1))
    lines = CliRunner().invoke(app, ["trace", "--list", "--file", str(file)]).output.splitlines()
    assert [line.split()[0] for line in lines] == [FAST, SLOW, LAST, "12" * 16]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        pytest.param(["ff"], Invalid, "0 traces", id="an id that no trace has"),
        pytest.param(["a"], Invalid, "2 traces", id="an id that two begin with"),
    ],
)
def test_what_names_no_trace(file: Path, arguments: list[str], kind: type[PenstockError], message: str) -> None:
    error = CliRunner().invoke(app, ["trace", *arguments, "--file", str(file)]).exception
    assert isinstance(error, kind)
    assert message in str(error)


def test_two_ways_to_choose_are_one_too_many(file: Path) -> None:
    assert CliRunner().invoke(app, ["trace", "--last", "--slowest", "--file", str(file)]).exit_code == 2


def test_a_file_of_batches_alone_has_no_request(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    write(path, span(BATCH, "batch", 4, 500))
    error = CliRunner().invoke(app, ["trace", "--file", str(path)]).exception
    assert isinstance(error, Unavailable)


def test_waiting_gives_what_has_arrived_when_the_time_is_up(file: Path) -> None:
    assert [row.name for row in wait_for_trace(file, int(FAST, 16), 0.1)] == ["gateway"]
    assert wait_for_trace(file.with_name("none"), int(FAST, 16), 0.1) == []
