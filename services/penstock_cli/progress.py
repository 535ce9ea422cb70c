"""Steps as they happen: with a spinner on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class StepDisplay:
    """Shows each step with its seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._status: Status | None = None
        self._shown = ""

    @property
    def seconds(self) -> float:
        """Seconds since the first step."""
        return time.monotonic() - self._started

    @contextmanager
    def step(self, doing: str, done: str = "") -> Iterator[None]:
        """A step. A failure leaves its line with a cross and passes on.

        Args:
            doing: what is done, such as `Starting Ray`.
            done: what to say afterwards; default: the same.
        """
        began = time.monotonic()
        try:
            if self._console.is_terminal:
                with self._console.status(doing) as self._status:
                    yield
            else:
                self._console.print(f"… {doing}", highlight=False)
                yield
        except BaseException:
            self._line("[red]✗[/red]", doing, began)
            raise
        finally:
            self._status = None
            self._shown = ""
        self._line("[green]✓[/green]", done or doing, began)

    def say(self, text: str) -> None:
        """Say how the running step gets on, in a line or several; a line that was just said is not said again."""
        before, self._shown = self._shown.splitlines(), text
        fresh = [line for line in text.splitlines() if line not in before]
        if self._status is not None and fresh:
            self._status.update(escape(text))
        elif self._status is None:
            for line in fresh:
                self._console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def _line(self, mark: str, text: str, began: float) -> None:
        self._console.print(f"{mark} {text} [dim]{time.monotonic() - began:.1f} s[/dim]", highlight=False)
