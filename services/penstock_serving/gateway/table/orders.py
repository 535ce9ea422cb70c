"""What a replica is told to count and to show to others, while revisions of its model are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from penstock.routing.fleet import SHOWN
from penstock.routing.outcomes import Orders, RevisionComparison, SampleSource, ShadowOrders, ShadowPeer
from penstock.routing.table import ModelKey, Replica, Table, replica_key
from penstock_serving.gateway.table.traffic import tls_name_of

_MOST_PEERS: Final = 4
"""Of each kind. A replica shows some samples a second, which one peer could take; more of them are for when one leaves."""


def orders_for(table: Table, key: ModelKey, replica_id: str) -> Orders | None:
    """What a gateway asks of a replica; None: nothing.

    Args:
        table: leases and routes.
        key: of the replica's model.
        replica_id: of the replica.
    """
    asking = table.replicas.get(replica_key(key, replica_id))
    route = table.routes.get(key)
    if asking is None or not asking.lease.obeys or route is None or route.comparison is None:
        return None
    comparison, revision = route.comparison, asking.lease.revision
    if SHOWN not in asking.lease.features:
        comparison = comparison.downgrade()
    if revision not in comparison.revisions:
        return None
    return Orders(outcomes=True, shadow=_shadow(table, asking, comparison) if revision == comparison.stable else None)


def _shadow(table: Table, asking: Replica, comparison: RevisionComparison) -> ShadowOrders | None:
    """To whom a replica shows samples; None where none are to be shown, or nobody is there to show them to."""
    if not comparison.shadow_share and not comparison.replay:
        return None
    # Whether a candidate gets requests of its own yet is no matter, but what it loaded is.
    others = [each for each in table.replicas_of(asking.key) if each != asking and table.has_model(each)]
    candidates = _choose(asking, (each for each in others if each.lease.revision == comparison.candidate))
    if not candidates:
        return None
    young = _choose(asking, (each for each in others if each.lease.revision == comparison.baseline))
    stable = _choose(asking, (each for each in others if each.lease.revision == comparison.stable))
    # Both sides are to be shown the same, or what that costs would tell them apart: nothing else is asked where young ones are.
    return ShadowOrders(
        revision=comparison.candidate,
        candidate=tuple(map(_peer, candidates)),
        twins=tuple(map(_peer, young or stable)),
        share=comparison.shadow_share,
        loss=comparison.loss,
        replay=comparison.replay,
        keep_payloads=comparison.keep_payloads,
        loss_where_it_suits=comparison.loss_where_it_suits,
        samples=_part_of(
            comparison.samples, asking, [each for each in others if each.lease.revision == comparison.stable]
        ),
    )


def _part_of(source: SampleSource | None, asking: Replica, beside: list[Replica]) -> SampleSource | None:
    """The samples that a replica is to show, of those that it and others of its revision share."""
    if source is None:
        return None
    before = sum(each.replica_id < asking.replica_id for each in beside)
    return source.model_copy(update={"part": before, "parts": len(beside) + 1})


def _choose(asking: Replica, replicas: Iterable[Replica]) -> list[Replica]:
    """Some of them, the same at every gateway and as long as they are there, and others for another replica that asks.

    Rendezvous hashing: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998).
    """

    def rank(other: Replica) -> bytes:
        return hashlib.sha256(f"{asking.replica_id}\n{other.replica_id}".encode()).digest()

    return sorted(replicas, key=rank)[:_MOST_PEERS]


def _peer(replica: Replica) -> ShadowPeer:
    return ShadowPeer(address=replica.lease.address, tls_name=tls_name_of(replica))
