"""Leases: replicas come, stay and go."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from aiohttp import web

from penstock.errors import Invalid
from penstock.routing.fleet import FEATURES, FEATURES_HEADER
from penstock.routing.leases import CertificateRequest, LeaseGranted, ReplicaLease, check_replica_id
from penstock.routing.validation import check_address
from penstock_serving.gateway.control.callers import Callers, RequestRefused, json_response, require
from penstock_serving.gateway.settings import GatewaySettings
from penstock_serving.gateway.table.orders import orders_for
from penstock_serving.gateway.table.registry import Registry
from penstock_serving.gateway.tls.control import ControlCertificates

_LEASE_BYTES = 64 * 1024
"""A lease has six short texts, five numbers, at times the metadata of its model, quoted, and while revisions are compared some
kilobytes of outcomes."""
_FORMER_LEASE_BYTES = 4 * 1024
_SETTLE_SECONDS = 10.0


class ReplicaHandlers:
    """`/v1/replicas`.

    Args:
        settings: the gateway's.
        registry: what is changed.
        callers: who may call.
        certificates: that replicas are granted; None: none are.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        registry: Registry,
        callers: Callers,
        certificates: ControlCertificates | None,
    ) -> None:
        self._own_addresses_only = settings.own_addresses_only
        self._requires_tls = settings.require_control_tls
        self._certificates = certificates
        self._registry = registry
        self._callers = callers

    def routes(self) -> list[web.RouteDef]:
        """What is answered here."""
        return [
            web.put("/v1/replicas/{replica_id}", self._put),
            web.delete("/v1/replicas/{replica_id}", self._delete),
            web.post("/v1/replicas/{replica_id}/certificate", self._certify),
        ]

    async def _put(self, request: web.Request) -> web.Response:
        replica_id = request.match_info["replica_id"]
        subject, body = await self._callers.read_as_replica(request, _LEASE_BYTES, _FORMER_LEASE_BYTES)
        lease = ReplicaLease.model_validate_json(body)
        require((lease.namespace, lease.model) == (subject.namespace, subject.model))
        check_replica_id(replica_id)
        self._require_tls(spoken=bool(lease.encrypted))
        if self._own_addresses_only:
            _require_own_address(request.remote, lease.address)
        generation = self._registry.generation
        self._registry.lease(replica_id, lease, subject.uid)
        if generation != self._registry.generation:
            await self._registry.wait_until_settled(_SETTLE_SECONDS)
        orders = orders_for(self._registry.table, (lease.namespace, lease.model), replica_id)
        granted = json_response(LeaseGranted(lease_seconds=lease.lease_seconds, orders=orders))
        granted.headers[FEATURES_HEADER] = " ".join(sorted(FEATURES))
        return granted

    def _require_tls(self, *, spoken: bool) -> None:
        """Requests go to a replica in the way that this gateway was told, or not at all."""
        if spoken and self._certificates is None:
            raise Invalid("InvalidLease", "encrypted: this gateway was started without --control-tls-port")
        if self._requires_tls and not spoken:
            raise RequestRefused(
                403,
                "encrypted: this gateway sends requests over TLS alone (gateway.replicaTLS: Required), and this replica speaks "
                "none; its deployment's next revision will",
            )

    async def _certify(self, request: web.Request) -> web.Response:
        replica_id = request.match_info["replica_id"]
        subject, body = await self._callers.read_as_replica(request, _LEASE_BYTES, _FORMER_LEASE_BYTES)
        asked = CertificateRequest.model_validate_json(body)
        require((asked.namespace, asked.model) == (subject.namespace, subject.model))
        check_replica_id(replica_id)
        if self._certificates is None or request.transport is None or not request.secure:
            raise RequestRefused(403, "certificates are granted over TLS alone, at --control-tls-port")
        return json_response(self._certificates.grant(subject, replica_id, asked.request))

    async def _delete(self, request: web.Request) -> web.Response:
        replica_id = request.match_info["replica_id"]
        alike = [each for each in self._registry.table.replicas.values() if each.replica_id == replica_id]
        found = self._callers.select_own(request, alike)
        if found is not None:
            self._registry.release(found.key, found.replica_id)
        # Where it has expired or was never there, what the caller asks for is already so once HAProxy knows it.
        await self._registry.wait_until_settled(_SETTLE_SECONDS)
        return web.Response(status=204)


def _require_own_address(remote: str | None, address: str) -> None:
    """A tenant could else have its requests sent to another's replica, or to anything that the gateway reaches."""
    claimed = ip_address(check_address(address))
    seen = ip_address(remote) if remote is not None else None
    mapped = seen.ipv4_mapped if isinstance(seen, IPv6Address) else None
    if claimed != (mapped or seen):
        raise RequestRefused(
            403, f"a replica may register its own address only: this is {mapped or seen}, not {claimed}"
        )
