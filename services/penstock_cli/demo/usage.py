"""What the replicas have used and done, from their own metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Unavailable
from penstock.routing.fleet import FEATURES, FEATURES_HEADER
from penstock.routing.identities import GATEWAY_NAME, replica_name
from penstock.routing.leases import RouteList
from penstock.routing.tokens import admin_token, word_for
from penstock.telemetry.names import METRIC_BATCH_ROWS
from penstock_cli.standalone.http import get
from penstock_runtime.authority import PlatformAuthority, client_context


@dataclass(frozen=True, slots=True)
class ReplicaUsage:
    """One replica's counts since it started, and its memory now."""

    batches: float = 0.0
    rows: float = 0.0
    cpu_seconds: float = 0.0
    resident_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class UsageByReplica:
    """Of all replicas that get requests, by their ids."""

    replicas: Mapping[str, ReplicaUsage]

    def mean_batch_since(self, before: UsageByReplica) -> float:
        """Mean rows of the batches since then; 0 where none ran."""
        batches = self._growth(before, lambda each: each.batches)
        return self._growth(before, lambda each: each.rows) / batches if batches > 0 else 0.0

    def cpu_seconds_since(self, before: UsageByReplica) -> float:
        """CPU time of the replicas' servers since then, without what a replica needed to start."""
        return self._growth(before, lambda each: each.cpu_seconds)

    @property
    def resident_bytes(self) -> float:
        """Resident memory of one replica's server, the largest."""
        return max((each.resident_bytes for each in self.replicas.values()), default=0.0)

    def _growth(self, before: UsageByReplica, figure: Callable[[ReplicaUsage], float]) -> float:
        both = self.replicas.keys() & before.replicas.keys()
        return sum(figure(self.replicas[name]) - figure(before.replicas[name]) for name in both)


def replica_usage(agent_url: str, gateway_secret: str, model: str, revision: str | None) -> UsageByReplica:
    """What the model's replicas say.

    Args:
        agent_url: the gateway agent's.
        gateway_secret: with which it is asked.
        model: whose replicas.
        revision: only of this revision; None: of all.

    Raises:
        Unavailable: the gateway's agent or a replica does not answer.
    """
    # Where the agent speaks TLS, replicas do, by the same authority.
    over_tls = agent_url.startswith("https:")
    trust = client_context(PlatformAuthority(gateway_secret).pem) if over_tls else None
    known = {FEATURES_HEADER: " ".join(FEATURES)}
    name = GATEWAY_NAME if over_tls else None
    status, body = get(f"{agent_url}/v1/routes", admin_token(gateway_secret), known, trust, name)
    if status != HTTPStatus.OK:
        raise Unavailable(Reason.GATEWAY_UNREACHABLE, f"the gateway's agent at {agent_url} answered {status}")
    try:
        routes = RouteList.model_validate_json(body).routes
    except ValidationError as error:
        raise Unavailable(Reason.GATEWAY_UNREACHABLE, f"the gateway's agent gave no route list: {error}") from error
    found: dict[str, ReplicaUsage] = {}
    asked = [(route, replica) for route in routes if route.model == model for replica in route.replicas]
    for of, replica in asked:
        if revision is not None and replica.revision != revision:
            continue
        uid = of.declared.owner if of.declared is not None else ""
        word = {"x-penstock-gateway": word_for(gateway_secret, (of.namespace, of.model), uid)}
        name = replica_name(of.namespace, of.model, uid, replica.replica_id) if over_tls else None
        url = f"{'https' if over_tls else 'http'}://{replica.address}/metrics"
        status, text = get(url, None, word, trust, name)
        if status != HTTPStatus.OK:
            raise Unavailable("ReplicaUnreachable", f"replica {replica.replica_id} gave no metrics (status {status})")
        found[replica.replica_id] = read_usage(text.decode())
    return UsageByReplica(found)


def read_usage(metrics: str) -> ReplicaUsage:
    """One replica's figures from its exposition text."""

    def total(name: str) -> float:
        lines = (line for line in metrics.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    return ReplicaUsage(
        batches=total(f"{METRIC_BATCH_ROWS}_count"),
        rows=total(f"{METRIC_BATCH_ROWS}_sum"),
        cpu_seconds=total("process_cpu_seconds_total"),
        resident_bytes=total("process_resident_memory_bytes"),
    )
