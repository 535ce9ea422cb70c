"""By which names gateways and replicas know each other in certificates of the platform's own.

No DNS has these names: they are looked for in certificates alone, whatever the address that was connected to.
"""

from __future__ import annotations

import hashlib
from typing import Final

GATEWAY_NAME: Final = "gateway.penstock.internal"
"""Of every gateway's agent."""
_REPLICAS: Final = "replica.penstock.internal"
_DIGITS: Final = 40
"""Of the hash, 160 bits: a label of DNS has 63 characters at most."""


def replica_name(namespace: str, model: str, uid: str, replica_id: str) -> str:
    """The name of one replica: of one model of one deployment, as its token says, under the id that it registers by."""
    said = f"{namespace}\n{model}\n{uid}\n{replica_id}"
    return f"{hashlib.sha256(said.encode()).hexdigest()[:_DIGITS]}.{_REPLICAS}"
