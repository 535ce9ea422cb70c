"""What a connection allows."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock_serving.replica.front.guard import GatewayGuard


@dataclass(slots=True)
class ConnectionLimits:
    """What a client may ask of a connection. Changes hold for what comes next on all that share them."""

    max_body_bytes: int
    guard: GatewayGuard = field(default_factory=GatewayGuard)
    max_header_bytes: int = 32 * 1024
    receive_seconds: float = 30.0
    """A request whose bytes stop coming for this long is given up."""
    idle_seconds: float = 300.0
    """A connection without a request is closed after this long; longer than a gateway keeps it, so that the gateway closes."""
