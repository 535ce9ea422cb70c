"""Figures as a table in a terminal. It brings rich along: commands import it once they have something to show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


def print_figures(
    console: Console, headings: Sequence[str], rows: Iterable[Sequence[str]], *, words: int, columns: int
) -> None:
    """Print a table in full: what a narrow terminal wraps is still read, what is cut is not.

    Args:
        console: where to; it is at least as wide afterwards.
        headings: one a column.
        rows: cells.
        words: the first columns, which are no numbers.
        columns: characters that a line may take at least.
    """
    console.width = max(console.width, columns)
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(headings):
        table.add_column(name, justify="right" if number >= words else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
