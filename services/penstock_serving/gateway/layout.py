"""Where the gateway's files are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The gateway's files. `run` holds what one process needs; `routes` outlives it."""

    state: Path

    @property
    def run(self) -> Path:
        """Sockets, the rendered configuration, the map; private to the user."""
        return self.state / "run"

    @property
    def routes(self) -> Path:
        """Routes as the operator declared them."""
        return self.state / "routes.json"

    @property
    def config(self) -> Path:
        """HAProxy's configuration."""
        return self.run / "haproxy.cfg"

    @property
    def map(self) -> Path:
        """From a model's path to the backend that serves it."""
        return self.run / "routes.map"

    @property
    def locks(self) -> Path:
        """From a model to how it is guarded."""
        return self.run / "locks.map"

    @property
    def grants(self) -> Path:
        """From a key or token to what it opens."""
        return self.run / "grants.map"

    @property
    def usual(self) -> Path:
        """From a path or a key, as they come, to all that decides a usual request."""
        return self.run / "usual.map"

    @property
    def certificate(self) -> Path:
        """Chain and key of TLS, as HAProxy reads them."""
        return self.run / "tls.pem"

    @property
    def authority(self) -> Path:
        """The platform's own authority, whose certificates replicas show."""
        return self.run / "authority.pem"

    @property
    def runtime_socket(self) -> Path:
        """HAProxy's runtime API."""
        return self.run / "haproxy.sock"

    @property
    def master_socket(self) -> Path:
        """Where HAProxy's master is told to reload."""
        return self.run / "master.sock"

    @property
    def agent_socket(self) -> Path:
        """Where HAProxy sends what it cannot route."""
        return self.run / "agent.sock"

    @property
    def metrics_socket(self) -> Path:
        """HAProxy's Prometheus exporter."""
        return self.run / "metrics.sock"

    @property
    def relay_socket(self) -> Path:
        """Where HAProxy's present worker takes requests from those before it."""
        return self.run / "relay.sock"
