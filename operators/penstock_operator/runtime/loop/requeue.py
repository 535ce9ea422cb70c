"""When to look at an object again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requeue:
    """When to look again without being told, and why."""

    after_seconds: float
    reason: str
    """For the log."""
