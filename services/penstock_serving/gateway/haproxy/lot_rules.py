"""HAProxy's rules on requests that several revisions share: each draws a lot, and the map says which revision's backend that is.

HAProxy's own ways to weigh servers keep no shares. `random(2)` gives the faster revision more: with half of the weights, one that
took half as long got 62 % of what 64 clients asked at once, and one that took twice as long 39 %. `random(1)` has the servers
stand on a ring in as many places as 16 times their weight, so that 1 % is up to a tenth off for as long as they stand so.
`roundrobin` keeps shares to the request, but deals them in turn: of a client that alternates between short and long requests, one
revision would get all the long ones. A lot is drawn for each request by itself, whatever came before and however busy any
replica is; within a revision the least busy replica gets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock_serving.gateway.haproxy.access_rules import ADDRESS
from penstock_serving.gateway.table.traffic import LOTS

LOTS_BY_CHANCE: Final = "w"
STICKY_LOTS: Final = "s"
"""How what leads to lots begins, in place of a backend's name: each request draws one, or each caller has one."""
_CALLER: Final = "txn.caller"


def lot_key(lot: int, way: str) -> str:
    """What the map knows a lot by; no path has a colon."""
    return f"{lot}:{way}"


def lot_rules(routes: Path, way: str, condition: str) -> Iterator[str]:
    """Where a request goes that draws lots. A lot that is not there (any more) leads on to the rules that follow, and so to the agent.

    Args:
        routes: the map.
        way: the variable that says in place of a backend which lots.
        condition: of requests that may have that variable.
    """
    found = f"concat(:,{way}),map_str({routes})"
    sticky = f"{condition} {{ var({way}) -m beg {STICKY_LOTS} }}"
    # Whom nothing else tells apart is known by his address, as in the limits on clients.
    yield f"  use_backend %[var({_CALLER}),xxh32,mod({LOTS}),{found}] if {sticky} {{ var({_CALLER}) -m found }}"
    yield f"  use_backend %[{ADDRESS},xxh32,mod({LOTS}),{found}] if {sticky} !{{ var({_CALLER}) -m found }}"
    yield f"  use_backend %[rand({LOTS}),{found}] if {condition} {{ var({way}) -m beg {LOTS_BY_CHANCE} }}"
