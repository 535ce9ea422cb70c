"""Turns of tests in several workers: beside each other, or alone."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

from tests.distribution import Presence, turn


def test_tests_run_beside_each_other(tmp_path: Path) -> None:
    with turn(tmp_path, alone=False), turn(tmp_path, alone=False):
        pass


def test_one_that_is_alone_waits_for_the_others_and_the_next_wait_for_it(tmp_path: Path) -> None:
    order: list[str] = []
    waits = threading.Event()

    def alone() -> None:
        waits.set()
        with turn(tmp_path, alone=True):
            order.append("alone")

    def beside() -> None:
        with turn(tmp_path, alone=False):
            order.append("beside")

    threads = [threading.Thread(target=alone), threading.Thread(target=beside)]
    with turn(tmp_path, alone=False):
        threads[0].start()
        waits.wait()
        # It has the gate as soon as it waits; only then is the next one started.
        while _gate_is_open(tmp_path):
            pass
        threads[1].start()
        threads[1].join(0.2)
        assert order == []
    for each in threads:
        each.join()
    assert order == ["alone", "beside"]


def _gate_is_open(folder: Path) -> bool:
    with (folder / "gate.lock").open("w") as gate:
        try:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


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
