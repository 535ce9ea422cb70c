"""What `penstock run` says to its user: what to type, and that all has ended."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tests.telling import assert_tells

from penstock_cli.invocation import as_typed
from penstock_cli.progress import StepDisplay
from penstock_cli.run import farewell, request_hints
from penstock_cli.standalone.ray_head import RayAccess

VENV = Path("/home/ada/code/.venv/bin/penstock")


@pytest.mark.parametrize(
    ("program", "on_path", "folder", "typed"),
    [
        pytest.param(VENV, VENV, "/", "penstock", id="what is on PATH is called by its name"),
        pytest.param(VENV, None, "/home/ada/code", ".venv/bin/penstock", id="what is below is called by its path"),
        pytest.param(VENV, None, "/home/ada/code/.venv/bin", "./penstock", id="what is here is called with a dot"),
        pytest.param(VENV, None, "/srv", str(VENV), id="what is elsewhere is called by its whole path"),
        pytest.param(VENV, Path("/usr/bin/penstock"), "/srv", str(VENV), id="another one on PATH is not this one"),
        pytest.param(Path("/my code/penstock"), None, "/srv", "'/my code/penstock'", id="a space is quoted"),
        pytest.param(Path("/x/kubectl-penstock"), None, "/srv", "kubectl penstock", id="a plugin is called by kubectl"),
    ],
)
def test_the_command_can_be_typed(program: Path, on_path: Path | None, folder: str, typed: str) -> None:
    assert as_typed(program, on_path, Path(folder)) == typed


def test_a_request_comes_with_a_way_to_its_trace() -> None:
    lines = request_hints("http://h/infer", Path("/s/digit.json"), "bin/penstock", "00-aa-bb-01")
    assert lines[1].split() == ["curl", "-s", "http://h/infer", "-d", "@/s/digit.json"]
    assert "-H 'traceparent: 00-aa-bb-01'" in lines[2]
    assert "`bin/penstock trace --last`" in lines[2]


def test_where_no_traces_are_collected_none_is_promised() -> None:
    assert len(request_hints("http://h/infer", Path("/s/digit.json"), "penstock", None)) == 2


def test_the_last_line_says_what_is_left() -> None:
    assert_tells(farewell(None), "stopped nothing")
    assert "http://ray:8265 stays up" in farewell(RayAccess("http://ray:8265", "http://ray:8000", None))


def test_a_step_says_only_what_is_new() -> None:
    out = StringIO()
    steps = StepDisplay(Console(file=out, width=40))
    with steps.step("Searching"):
        for text in ("Building b", "Building b", "Measuring\nSo far: b is fast", "Loading\nSo far: b is fast"):
            steps.say(text)
    said = out.getvalue().splitlines()
    assert said[1:-1] == ["  Building b", "  Measuring", "  So far: b is fast", "  Loading"]


def test_a_long_line_is_left_to_the_terminal_to_wrap() -> None:
    out = StringIO()
    steps = StepDisplay(Console(file=out, width=40))
    with steps.step("Searching"):
        steps.say("word " * 20)
    assert len(out.getvalue().splitlines()) == 3
