"""A program that notes what it was started with, and ends as it was told to."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

IMPORTED_BY = os.getpid()
IMPORTED_WITH = os.environ.get("EARLY", "nothing")


def main() -> int:
    note, status = sys.argv[1:]
    Path(note).write_text(f"{os.environ['WORD']} {sys.stdin.read()!r} {os.getpid()} {IMPORTED_BY} {IMPORTED_WITH}")
    os.write(1, b"out")
    os.write(2, b"error")
    if status == "wait":
        time.sleep(60)
    return int(status)
