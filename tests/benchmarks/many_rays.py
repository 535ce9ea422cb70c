"""Many Ray clusters in one process, told apart by the host that they are asked for, and the replicas that they would run.

Each is a `RayStandIn`, which the contract tests hold to what a real Ray does. Of the replicas there is only what a gateway
sees of them: a lease, renewed as a real replica's is, but a longer one.

    python -m tests.benchmarks.many_rays HOST PORT

`DELETE /standin/NAME` takes the cluster NAME away, and its replicas with it.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from tests.contract.ray_rest_standin import RayStandIn

from penstock.routing.fleet import endpoints, name_to_resolve
from penstock.routing.leases import ReplicaLease
from penstock.serving.arguments import BuildArguments

LEASE_SECONDS = 60.0
_RENEW_SECONDS = 25.0
_LOOK_SECONDS = 0.2
_AT_ONCE = 256
"""A real replica holds its own lease, and waits for no other."""


@dataclass(frozen=True)
class Place:
    """A replica's place behind one gateway."""

    gateway: str
    replica_id: str
    token: str
    lease: ReplicaLease


@dataclass
class Rays:
    """All clusters by host, and the leases that their replicas hold."""

    clusters: dict[str, RayStandIn] = field(default_factory=lambda: defaultdict(RayStandIn))
    requests: int = 0
    held: dict[Place, float] = field(default_factory=dict)

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(client_max_size=64 << 20)
        application.router.add_delete("/standin/{name}", self._drop)
        application.router.add_get("/standin/requests", self._count)
        application.router.add_put("/{path:.*}", self._put)
        application.router.add_get("/{path:.*}", self._get)
        return application

    async def _drop(self, request: web.Request) -> web.Response:
        self.clusters.pop(request.match_info["name"], None)
        return web.Response(status=204)

    async def _count(self, _: web.Request) -> web.Response:
        return web.json_response({"requests": self.requests, "leases": len(self.held)})

    async def _put(self, request: web.Request) -> web.Response:
        self._check(request)
        self.clusters[_host(request)].put(await request.json())
        return web.Response()

    async def _get(self, request: web.Request) -> web.Response:
        self._check(request)
        found = self.clusters[_host(request)].answer(request.path)
        return web.Response(status=404) if found is None else web.json_response(found)

    def _check(self, request: web.Request) -> None:
        self.requests += 1
        if not request.headers.get("authorization", "").startswith("Bearer "):
            raise web.HTTPUnauthorized

    async def hold_leases(self, session: aiohttp.ClientSession) -> None:
        """Register running replicas, renew, and take away those that are gone, for ever."""
        slots = asyncio.Semaphore(_AT_ONCE)
        while True:
            wanted, now = await self._places(), time.monotonic()
            due = [place for place in wanted if now - self.held.get(place, -1e9) > _RENEW_SECONDS]
            gone = [place for place in self.held if place not in wanted]
            await asyncio.gather(*(self._call(session, slots, "PUT", each) for each in due))
            await asyncio.gather(*(self._call(session, slots, "DELETE", each) for each in gone))
            await asyncio.sleep(_LOOK_SECONDS)

    async def _places(self) -> set[Place]:
        found = set()
        for cluster in self.clusters.values():
            for name, each in cluster.details()["applications"].items():
                if each["status"] == "RUNNING":
                    found |= await _places_of(name, each)
        return found

    async def _call(self, session: aiohttp.ClientSession, slots: asyncio.Semaphore, method: str, place: Place) -> None:
        url = f"{place.gateway}/v1/replicas/{place.replica_id}"
        body = place.lease.model_dump_json() if method == "PUT" else ""
        try:
            async with slots, session.request(
                method, url, data=body, headers={"authorization": f"Bearer {place.token}"}
            ) as answer:  # fmt: skip
                taken = answer.status < 300
        except (aiohttp.ClientError, TimeoutError):
            taken = method == "DELETE"  # a gateway that is gone
        if taken and method == "PUT":
            self.held[place] = time.monotonic()
        elif taken:
            self.held.pop(place, None)


async def _places_of(name: str, application: dict[str, Any]) -> set[Place]:
    arguments = BuildArguments.model_validate(application["deployed_app_config"]["args"])
    lease = ReplicaLease(
        namespace=arguments.owner.namespace,
        model=arguments.owner.name,
        version=arguments.replica.version,
        revision=arguments.replica.revision,
        address="127.0.0.1:9",
        lease_seconds=LEASE_SECONDS,
    )
    gateways = [each for url in arguments.replica.gateways for each in await _gateways(url)]
    replicas = application["deployments"]["replica"]["replicas"]
    token = arguments.replica.registration_token
    return {
        Place(gateway, f"{name}-{replica['replica_id']}", token, lease)
        for gateway in gateways
        for replica in replicas
    }  # fmt: skip


_KNOWN: dict[str, tuple[str, ...]] = {}


async def _gateways(url: str) -> tuple[str, ...]:
    """Base URLs behind a URL; here they never change."""
    if url not in _KNOWN:
        host = name_to_resolve(url)
        loop = asyncio.get_running_loop()
        found = [] if host is None else await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        _KNOWN[url] = tuple(each.base_url for each in endpoints(url, [str(entry[4][0]) for entry in found]))
    return _KNOWN[url]


def _host(request: web.Request) -> str:
    return (request.host or "").partition(":")[0]


async def _serve(host: str, port: int) -> None:
    rays = Rays()
    runner = web.AppRunner(rays.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        await rays.hold_leases(session)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
