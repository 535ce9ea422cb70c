"""Tests that come last, in several workers."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.distribution import Presence


def test_a_test_that_comes_last_waits_until_no_other_worker_has_any(tmp_path: Path) -> None:
    others = [Presence(tmp_path), Presence(tmp_path)]
    last = Presence(tmp_path)
    went_on = threading.Event()

    def wait() -> None:
        last.wait_for_others()
        went_on.set()

    thread = threading.Thread(target=wait)
    thread.start()
    others[0].end()
    assert not went_on.wait(0.2)
    others[1].end()
    assert went_on.wait(30)
    thread.join()
