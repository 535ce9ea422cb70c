"""The error hierarchy. Every error that Penstock raises on purpose is one of these."""

from __future__ import annotations


class PenstockError(Exception):
    """Base of all deliberate errors.

    Args:
        reason: a constant in CamelCase, fit for a condition's `reason`.
        message: what is wrong, where, and what to do.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class Invalid(PenstockError):
    """The user's input is wrong. Retrying cannot help; it becomes a condition or a 4xx."""


class Unavailable(PenstockError):
    """Something that is needed does not answer. Retry with back-off; a 503."""


class Conflict(PenstockError):
    """Someone else wrote first. Observe again and retry at once."""
