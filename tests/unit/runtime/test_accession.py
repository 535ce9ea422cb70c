"""A process that was elected acts only once it has seen what the former leader wrote."""

from __future__ import annotations

import threading

from tests.waiting import eventually

from penstock.errors import Unavailable
from penstock_operator.runtime.leading.accession import Accession

_PATIENCE = 20.0


def test_it_is_complete_only_after_the_refresh() -> None:
    may_end = threading.Event()

    def refresh(_: bool) -> None:  # noqa: FBT001
        may_end.wait(_PATIENCE)

    accession = Accession(refresh)
    assert not accession.complete
    accession.begin()
    assert not accession.complete
    may_end.set()
    assert eventually(lambda: accession.complete)
    accession.end()
    assert not accession.complete


def test_a_refresh_that_fails_is_done_again() -> None:
    attempts: list[int] = []

    def refresh(_: bool) -> None:  # noqa: FBT001
        attempts.append(1)
        if len(attempts) == 1:
            raise Unavailable("Down", "no answer")

    accession = Accession(refresh)
    accession.begin()
    assert eventually(lambda: accession.complete)
    assert len(attempts) == 2


def test_a_refresh_of_a_former_term_completes_nothing() -> None:
    may_end = [threading.Event(), threading.Event()]
    begun: list[int] = []

    def refresh(_: bool) -> None:  # noqa: FBT001
        begun.append(1)
        may_end[len(begun) - 1].wait(_PATIENCE)

    accession = Accession(refresh)
    accession.begin()
    assert eventually(lambda: len(begun) == 1)
    accession.end()
    accession.begin()
    assert eventually(lambda: len(begun) == 2)
    may_end[0].set()
    assert not accession.complete
    may_end[1].set()
    assert eventually(lambda: accession.complete)
