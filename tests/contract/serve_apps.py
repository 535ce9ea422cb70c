"""A Serve application for the contract suite; a real Ray imports it."""

from __future__ import annotations

from typing import Any

from ray import serve


class Replica:
    """Fails in its constructor where it is told to."""

    def __init__(self, fail: str | None) -> None:
        if fail:
            raise RuntimeError(fail)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take a user_config in place."""


def build(args: dict[str, Any]) -> serve.Application:
    """The application."""
    return serve.deployment(Replica, name="replica", max_constructor_retry_count=1).bind(args.get("fail"))
