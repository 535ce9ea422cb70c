"""Prometheus' own query engine over what programs export, built once from its Go module."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster.binary import Program, build
from tests.cluster.tools import say

PROMEVAL = Program("promeval", Path(__file__).resolve().parents[1] / "dashboards", "Prometheus' query engine")


def evaluate(queries: list[str], scrapes: list[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """What each query answers at a time; the forms of `scrapes` and answers are in tests/dashboards/main.go."""
    task = json.dumps({"scrapes": scrapes, "expressions": queries, "seconds": seconds})
    done = subprocess.run(
        [str(build(say, PROMEVAL))], input=task, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
