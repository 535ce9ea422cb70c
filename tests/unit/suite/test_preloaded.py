"""Programs that are forked after their imports: arguments, environment, signals and exit status are theirs."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests import preloaded
from tests.waiting import eventually

PROGRAM = "tests.unit.suite.asked_program"


def test_each_has_its_own_arguments_and_environment_and_tells_its_status(tmp_path: Path) -> None:
    notes = [tmp_path / "a", tmp_path / "b"]
    started = [
        preloaded.start(PROGRAM, [str(note), str(status)], os.environ | {"WORD": note.name})
        for status, note in enumerate(notes)
    ]
    assert [each.wait() for each in started] == [0, 1]
    told = [note.read_text().split() for note in notes]
    assert [words[:3] for words in told] == [["a", "''", str(started[0].pid)], ["b", "''", str(started[1].pid)]]
    assert told[0][3] == told[1][3]
    assert told[0][3] not in {str(each.pid) for each in started}


def test_what_is_read_at_import_is_of_the_environment_that_is_named_for_it(tmp_path: Path) -> None:
    notes = [tmp_path / "a", tmp_path / "b"]
    for note in notes:
        early = (("EARLY", note.name),)
        assert preloaded.start(PROGRAM, [str(note), "0"], {"WORD": "a"}, imported_with=early).wait(60) == 0
    assert [note.read_text().split()[-1] for note in notes] == ["a", "b"]


def test_one_has_the_streams_that_it_is_given_until_it_ends(tmp_path: Path) -> None:
    note, log = tmp_path / "a", tmp_path / "log"
    (given, give), (told, tell) = os.pipe(), os.pipe()
    with log.open("wb") as errors:
        started = preloaded.start(PROGRAM, [str(note), "0"], os.environ | {"WORD": "a"}, (given, tell, errors.fileno()))
    os.close(given)
    os.close(tell)
    with os.fdopen(give, "wb") as stdin, os.fdopen(told, "rb") as stdout:
        stdin.write(b"words")
        stdin.close()
        assert stdout.read() == b"out"
    assert started.wait(60) == 0
    assert (note.read_text().split()[1], log.read_bytes()) == ("'words'", b"error")


def test_a_signal_ends_one_and_its_status_says_so(tmp_path: Path) -> None:
    note = tmp_path / "a"
    started = preloaded.start(PROGRAM, [str(note), "wait"], os.environ | {"WORD": "a"})
    eventually(note.exists)
    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(0.01)
    started.kill()
    assert started.wait(60) == -signal.SIGKILL
    started.kill()
    assert not Path("/proc", str(started.pid)).exists()
