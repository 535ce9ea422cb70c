"""Counts what became of the requests of `endurance`. Pure: no socket, no clock."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.endurance_cases import KINDS, WRONG, Answers

_TOLD = 20


@dataclass(frozen=True)
class Scene:
    """How things stand, as the clients were told last."""

    gateways: tuple[tuple[str, int], ...] = ()
    """Where the next connection may go."""
    revisions: frozenset[int] = frozenset()
    """Which may answer."""
    happening: str = ""


@dataclass
class Judge:
    """What a run has seen. `scene` is set by who runs it."""

    answers: Answers
    scene: Scene = field(default_factory=Scene)
    right: Counter[str] = field(default_factory=Counter)
    by_revision: Counter[int] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    """By kind and what it was."""
    wrong: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    """Calls that a gateway which left had not begun, by HTTP/2's own word, and which went to another (RFC 9113, 6.8)."""
    told: list[dict[str, Any]] = field(default_factory=list)
    """The first that failed or were wrong."""
    longest: dict[str, Any] = field(default_factory=lambda: {"seconds": 0.0, "at": 0.0, "kind": "", "during": ""})
    seconds: dict[str, array[float]] = field(default_factory=lambda: {kind: array("f") for kind in KINDS})

    @property
    def finished(self) -> int:
        """Requests that have ended in some way."""
        return self.right.total() + self.wrong.total() + self.failed.total()

    def answer(
        self, kind: str, number: int, began: Scene, head: bytes, body: bytes, *, now: float, took: float
    ) -> None:
        """An answer whose status says that all is well.

        Args:
            kind: of the request.
            number: of the input.
            began: how things stood when it was sent.
            head: the answer's header, in lower case.
            body: its body or message.
            now: seconds since the start.
            took: seconds.
        """
        revision = self.answers.revision(kind, number, head, body)
        if revision == WRONG:
            self._count_wrong(kind, f"input {number}: no revision answers so: {body[:40]!r}", now)
        elif revision not in began.revisions and revision not in self.scene.revisions:
            allowed = sorted(began.revisions | self.scene.revisions)
            self._count_wrong(kind, f"input {number}: revision {revision} answered, where {allowed} may", now)
        else:
            self.right[kind] += 1
            self.by_revision[revision] += 1
            self.seconds[kind].append(took)
            if took > self.longest["seconds"]:
                about = {"at": round(now, 2), "kind": kind, "during": self.scene.happening}
                self.longest = {"seconds": round(took, 3)} | about

    def fail(self, kind: str, what: str, now: float, detail: str = "") -> None:
        """A request that has no answer, or one that says that it failed."""
        self.failed[f"{kind}: {what}"] += 1
        self._tell(kind, f"{what} {detail}".strip(), now)

    def _count_wrong(self, kind: str, what: str, now: float) -> None:
        self.wrong[kind] += 1
        self._tell(kind, what, now)

    def _tell(self, kind: str, what: str, now: float) -> None:
        if len(self.told) < _TOLD:
            self.told.append({"at": round(now, 2), "kind": kind, "what": what, "during": self.scene.happening})
