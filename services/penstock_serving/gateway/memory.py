"""The most memory that a gateway's settings let it take: what a limit on it must leave room for. Pure but for `limit`.

Whatever grows with what clients, tenants or replicas do is bounded by a setting or by a constant named here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from penstock_serving.gateway.settings import GatewaySettings

BUFFER_BYTES: Final = 32_768
"""`tune.bufsize`. A retry needs the whole request in one buffer, and copies a whole one; larger bodies take as many more reads."""
HOT_BYTES: Final = 4 * 1024 * 1024
"""`tune.memory.hot-size`: what each of HAProxy's threads may keep of freed memory."""
_BUFFERS: Final = 3
"""Of a connection: what comes from the client, what goes to it, and the request that is kept for a retry."""
_CONNECTION_BYTES: Final = 6 * 1024
"""HAProxy's session, stream, variables and both sides' sockets, beside the buffers."""
_TLS_BYTES: Final = 48 * 1024
"""OpenSSL's part of a connection: its buffers of a record each way, and the session."""
_OWN_CONNECTIONS: Final = 64
_TABLES_BYTES: Final = 3 * 100_000 * 128 + 3 * 10_000 * 192
"""Stick tables, which are bounded in entries: callers, sources and clients; namespaces and portions."""
_BASE_BYTES: Final = 160 * 1024 * 1024
"""Both processes before anyone asks: the interpreter with its modules some 70 MiB, HAProxy's two some 30, and what is freed late."""
_KEYS_BYTES: Final = 50_000 * 1024
"""Keys and tokens, each with its entry in the agent and in HAProxy: some 12 namespaces with as many keys as they may have, or 4
whose keys name as many deployments as they may."""
_KEPT_BYTES: Final = 16 * 1024 * 1024
"""Metadata of models that sleep."""
_OUTCOMES_BYTES: Final = 20 * 1024 * 1024
"""What replicas count while their revisions are compared: as many of one namespace as may be, or some thousands that say what ours do."""
_STRANGERS_BYTES: Final = 8192 * 8 * 1024
"""Connections to the agent's own ports."""
_CGROUP: Final = Path("/sys/fs/cgroup/memory.max")


def connection_bytes(*, tls: bool = False, replica_tls: bool = False) -> int:
    """The most that one client's connection takes in HAProxy, with the one to a replica."""
    return _BUFFERS * BUFFER_BYTES + _CONNECTION_BYTES + _TLS_BYTES * (tls + replica_tls)


def max_bytes(settings: GatewaySettings) -> int:
    """The most that a gateway takes, both processes together. A reload for more slots has its workers share connections."""
    tls, replica_tls = settings.tls_certificate is not None, bool(settings.control_tls_port)
    streams = settings.requests_over_http2 * connection_bytes(replica_tls=replica_tls) if settings.http2 else 0
    each = connection_bytes(tls=tls, replica_tls=replica_tls)
    clients = (settings.max_connections + _OWN_CONNECTIONS) * each + streams
    kept = _KEYS_BYTES + _KEPT_BYTES + _OUTCOMES_BYTES
    own = _BASE_BYTES + settings.threads * HOT_BYTES + _TABLES_BYTES + kept + _STRANGERS_BYTES
    return clients + settings.max_held_bytes + own


def limit(path: Path = _CGROUP) -> int | None:
    """The memory that this process's group may take; None where nothing bounds it."""
    try:
        said = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(said) if said.isdigit() else None
