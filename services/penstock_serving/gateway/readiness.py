"""Whether this gateway may get requests: its HAProxy runs, it has been told all routes, and it is not leaving."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable

from penstock.errors import Conflict
from penstock.routing.fleet import FEATURES, GatewayState
from penstock_serving.gateway.settings import GatewaySettings

logger = logging.getLogger(__name__)


class Readiness:
    """What this process knows of its own state. Belongs to one event loop.

    Args:
        settings: the gateway's.
        haproxy_serves: whether HAProxy runs and has taken the table once.
    """

    def __init__(self, settings: GatewaySettings, haproxy_serves: Callable[[], bool]) -> None:
        self._patience = settings.await_operator_seconds
        self._haproxy_serves = haproxy_serves
        self._instance = secrets.token_hex(8)
        self._started = self._news = time.monotonic()
        self._complete = self._patience == 0
        self._said = self._complete
        self.leaving = False

    @property
    def state(self) -> GatewayState:
        """As told to the operator."""
        return GatewayState(self._instance, self._complete, time.monotonic() - self._started, FEATURES)

    @property
    def complete(self) -> bool:
        """Whether a model without a route is one that is not there."""
        return self._complete

    @property
    def awaits(self) -> bool:
        """Whether routes may still come: the operator told something new lately, or has not had the time to."""
        waits = not self._complete and time.monotonic() - self._news < self._patience
        if not waits and not self._said:
            self._said = True
            logger.warning(
                "the operator has not said within %g s that all routes are declared; ready with those there are, and "
                "requests for other models get 503",
                self._patience,
            )
        return waits

    def note_declaration(self) -> None:
        """The operator declared a route: it is not done, and it is there."""
        self._news = time.monotonic()

    def note_completion(self, instance: str) -> None:
        """The operator says that it has declared all routes to an instance.

        Raises:
            Conflict: it means a former process at this address.
        """
        if instance != self._instance:
            raise Conflict("AnotherInstance", f"this gateway is instance {self._instance}, not {instance}")
        if not self._complete:
            self._complete = self._said = True
            logger.info("all routes are declared")

    def complaint(self) -> str | None:
        """Why this gateway should get no new clients; None where it should."""
        if self.leaving:
            return "this gateway is leaving"
        if not self._haproxy_serves():
            return "HAProxy does not run yet"
        if self.awaits:
            return "the operator has not declared all routes yet"
        return None
