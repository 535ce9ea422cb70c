"""What is logged stays bounded, whatever makes it repeat; and what was left out is told."""

from __future__ import annotations

import logging
import queue
import sys

import pytest
from tests.telling import Telling

from penstock.serving.control import ReplicaSettings
from penstock_runtime.logs import RateLimitedLines, RateLimitFilter, TokenBucket
from penstock_serving.replica.supervision import ReplicaFailedError, Supervisor


def test_an_allowance_is_used_up_and_comes_back_with_time() -> None:
    allowance = TokenBucket(2, 0.5, now=100)
    assert [allowance.take(100) for _ in range(4)] == [0, 0, None, None]
    assert allowance.take(101) is None
    assert allowance.take(102) == 3, "it tells what was withheld"
    assert allowance.take(200) == 0
    assert [allowance.take(200) for _ in range(2)] == [0, None], "no more is saved up than the burst"


def test_each_place_that_logs_has_an_allowance_of_its_own() -> None:
    now = 0.0
    written: list[str] = []
    logger = logging.getLogger("tests.bounded")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = logging.Handler()
    handler.emit = lambda record: written.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(RateLimitFilter(burst=3, per_second=1, clock=lambda: now))
    logger.addHandler(handler)

    def refuse(number: int) -> None:
        logger.info("refused request %d", number)

    for number in range(100):
        refuse(number)
    logger.warning("something else")
    assert written == ["refused request 0", "refused request 1", "refused request 2", "something else"]
    now = 1.0
    refuse(100)
    assert written[-1] == Telling("refused request 100", "97 more")


def test_lines_that_differ_in_numbers_alone_are_of_one_kind() -> None:
    written: list[bytes] = []
    lines = RateLimitedLines(written.append, now=0)
    for number in range(10_000):
        lines.take(b"2026-11-29 10:00:%d 0x%x Expected shape {1} does not match {%d}\n" % (number, number, number), 0)
    assert len(written) == 30
    lines.take(b"another\n", 0)
    assert written[-1] == b"another\n"
    lines.take(b"2026-11-29 10:00:1 0x1 Expected shape {1} does not match {1}\n", 5)
    assert written[-2] == b"(9970 lines like the next one, and 0 others, were not written)\n"


def test_lines_of_ever_new_kinds_are_bounded_by_their_bytes_and_forgotten() -> None:
    written: list[bytes] = []
    lines = RateLimitedLines(written.append, now=0)
    for number in range(5000):
        word = "".join(chr(97 + int(digit)) for digit in str(number))
        lines.take(word.encode() + b"x" * 1000 + b"\n", 0)
    assert sum(map(len, written)) <= 1 << 20
    assert len(lines._kinds) <= 256


def test_a_server_that_repeats_itself_is_passed_on_in_part_and_its_last_words_too(
    capfd: pytest.CaptureFixture[str],
) -> None:
    flood = "import sys; [print('warning', i, file=sys.stderr) for i in range(6000)]; print('why', file=sys.stderr)"
    settings = ReplicaSettings(namespace="n", model="m", revision="r", replica_id="i", storage_uri="file:///none")
    died: queue.Queue[int] = queue.Queue()
    with pytest.raises(ReplicaFailedError):
        Supervisor(settings, died.put, [sys.executable, "-c", flood]).start()
    passed = capfd.readouterr().err.splitlines()
    assert [line for line in passed if line.startswith("warning")] == [f"warning {i}" for i in range(30)]
    assert "why" in passed
