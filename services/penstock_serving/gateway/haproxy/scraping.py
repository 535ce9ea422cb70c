"""Lets Prometheus read replicas' metrics through the gateway, which alone may reach them, on ports that Linux picks.

`GET /scrape-targets` is HTTP service discovery (https://prometheus.io/docs/prometheus/latest/http_sd/): one target for each
replica, all at the address by which Prometheus asked, each with a path of its own, which is passed on to the replica.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import aiohttp
from aiohttp import web

from penstock.errors import Unavailable
from penstock.routing.table import replica_key
from penstock.routing.tokens import word_for
from penstock_serving.gateway.haproxy.usual import GATEWAY_HEADER
from penstock_serving.gateway.holding.forwarding import scheme_of
from penstock_serving.gateway.table.registry import Registry
from penstock_serving.gateway.table.traffic import tls_name_of

_SECONDS: Final = 5.0
_OURS: Final = (b"penstock_", b"process_", b"python_")
_CLAIMS: Final = re.compile(rb'(?:[{,]\s*)"?(namespace|model)"?\s*=\s*"((?:[^"\\]|\\.)*)"')
_MOST_SERIES: Final = 5000
"""Of one replica, which has some hundred."""
_LARGEST: Final = 4 * 1024 * 1024
"""Bytes of a replica's metrics. They are some tens of kilobytes."""


def filter_metrics(text: bytes, namespace: str, model: str) -> bytes:
    """What a replica may say: series of the names that ours have, so many at most, and none that claims another's labels."""
    kept = []
    left = _MOST_SERIES
    own = {b"namespace": namespace.encode(), b"model": model.encode()}
    for line in text.split(b"\n"):
        if line.startswith(b"#"):
            kept.append(line)
        elif left and line.startswith(_OURS) and all(value == own[name] for name, value in _CLAIMS.findall(line)):
            kept.append(line)
            left -= 1
    return b"\n".join([*kept[: 2 * _MOST_SERIES], b""])


class Scraping:
    """Where replicas' metrics are, and what they are.

    Args:
        registry: says which replicas there are.
        session: to them.
        secret: the gateway's.
        trust: of replicas that speak TLS; None: there are none.
    """

    def __init__(
        self, registry: Registry, session: aiohttp.ClientSession, secret: str, trust: ssl.SSLContext | None = None
    ) -> None:
        self._secret = secret
        self._trust = trust
        self._registry = registry
        self._session = session

    def add_to(self, application: web.Application) -> web.Application:
        """The application, with these paths."""
        application.add_routes(
            [
                web.get("/scrape-targets", self._get_targets),
                web.get("/replicas/{namespace}/{model}/{replica_id}/metrics", self._get_metrics),
            ]
        )
        return application

    async def _get_targets(self, request: web.Request) -> web.Response:
        """The labels are those of the lease, which the replica's token vouches for, and not what its metrics say."""
        targets = [
            {
                "targets": [request.host],
                "labels": {
                    "__metrics_path__": f"/replicas/{'/'.join(replica.key)}/{quote(replica.replica_id, safe='')}/metrics",
                    "instance": replica.replica_id,
                    "namespace": replica.lease.namespace,
                    "model": replica.lease.model,
                    "version": replica.lease.version,
                },
            }
            for _, replica in sorted(self._registry.table.replicas.items())
        ]
        return web.json_response(targets)

    async def _get_metrics(self, request: web.Request) -> web.Response:
        named = request.match_info
        key = named["namespace"], named["model"]
        replica = self._registry.table.replicas.get(replica_key(key, named["replica_id"]))
        if replica is None:
            return web.Response(text="there is no such replica\n", status=404)
        try:
            shown = {GATEWAY_HEADER: word_for(self._secret, key, replica.uid)}
            body = await self._read(replica.lease.address, tls_name_of(replica), shown)
        except (aiohttp.ClientError, TimeoutError) as error:
            return web.Response(text=f"the replica does not answer: {error!r}\n", status=502)
        except Unavailable as error:
            return web.Response(text=f"{error.message}\n", status=502)
        return web.Response(body=filter_metrics(body, *key), content_type="text/plain", charset="utf-8")

    async def _read(self, address: str, tls_name: str, headers: Mapping[str, str]) -> bytes:
        """What a replica answers.

        Raises:
            Unavailable: it is no metrics.
        """
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        async with self._session.get(
            f"{scheme_of(tls_name)}://{address}/metrics", headers=headers, timeout=timeout, allow_redirects=False,
            ssl=self._trust or True, server_hostname=tls_name or None,
        ) as answer:  # fmt: skip
            if answer.status != HTTPStatus.OK:
                raise Unavailable("NoMetrics", f"the replica answered {answer.status}")
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > _LARGEST:
                    raise Unavailable("NoMetrics", f"the replica's metrics are longer than {_LARGEST} bytes")
            return bytes(body)
