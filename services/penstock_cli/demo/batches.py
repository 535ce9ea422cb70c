"""How many rows the replicas' batches had, from the replicas' own metrics."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from pydantic import ValidationError

from penstock.errors import Unavailable
from penstock.routing.leases import RouteList
from penstock.routing.tokens import admin_token
from penstock.telemetry.names import METRIC_BATCH_ROWS
from penstock_cli.standalone.http import get


@dataclass(frozen=True, slots=True)
class BatchCount:
    """Batches run so far and the rows in them."""

    batches: float = 0.0
    rows: float = 0.0

    def mean_since(self, before: BatchCount) -> float:
        """Mean rows of the batches since then; 0 where none ran."""
        batches = self.batches - before.batches
        return (self.rows - before.rows) / batches if batches > 0 else 0.0


def count_batches(agent_url: str, gateway_secret: str, model: str) -> BatchCount:
    """Sum over the model's replicas.

    Raises:
        Unavailable: the gateway's agent or a replica does not answer.
    """
    status, body = get(f"{agent_url}/v1/routes", admin_token(gateway_secret))
    if status != HTTPStatus.OK:
        raise Unavailable("GatewayUnreachable", f"the gateway's agent at {agent_url} answered {status}")
    try:
        routes = RouteList.model_validate_json(body).routes
    except ValidationError as error:
        raise Unavailable("GatewayUnreachable", f"the gateway's agent gave no route list: {error}") from error
    found = BatchCount()
    for replica in (replica for route in routes if route.model == model for replica in route.replicas):
        status, text = get(f"http://{replica.address}/metrics")
        if status != HTTPStatus.OK:
            raise Unavailable("ReplicaUnreachable", f"replica {replica.replica_id} gave no metrics (status {status})")
        found = _add(found, text.decode())
    return found


def _add(counted: BatchCount, metrics: str) -> BatchCount:
    """The count with one replica's exposition text added."""
    batches, rows = counted.batches, counted.rows
    for line in metrics.splitlines():
        if line.startswith(f"{METRIC_BATCH_ROWS}_count"):
            batches += float(line.rpartition(" ")[2])
        elif line.startswith(f"{METRIC_BATCH_ROWS}_sum"):
            rows += float(line.rpartition(" ")[2])
    return BatchCount(batches, rows)
