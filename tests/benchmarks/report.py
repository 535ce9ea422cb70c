"""Results as a table for people and JSON for machines, under build/bench."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

OUT = Path("build/bench")


def publish(name: str, title: str, rows: list[dict[str, Any]], notes: list[str] | None = None) -> None:
    """Print rows (all with the same keys) as a table, and write `NAME.json` and `NAME.txt`."""
    OUT.mkdir(parents=True, exist_ok=True)
    document = {
        "benchmark": name,
        "title": title,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "machine": machine(),
        "rows": rows,
        "notes": notes or [],
    }
    (OUT / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    table = Table(title=title)
    for key in rows[0]:
        table.add_column(key, justify="left" if isinstance(rows[0][key], str) else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    with (OUT / f"{name}.txt").open("w") as file:
        for console in (Console(width=150), Console(file=file, width=150)):
            console.print(table)
            for note in notes or []:
                console.print(f"  {note}")


def progress(text: str) -> None:
    """Say what is under way, on standard error."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def machine() -> str:
    """The processor and how many of its cores are ours."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{len(os.sched_getaffinity(0))} × {model}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
