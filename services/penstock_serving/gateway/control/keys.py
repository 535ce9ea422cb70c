"""API keys of namespaces, as the operator tells them."""

from __future__ import annotations

import contextlib

from aiohttp import web
from pydantic import ValidationError

from penstock.errors import Invalid, Unavailable
from penstock.routing.access import MAX_KEYS
from penstock.routing.keys import MOST_KEY_BYTES, KeyChange, KeyDigests
from penstock_serving.gateway.control.callers import Callers, RequestRefused, json_response, read_body, require_same
from penstock_serving.gateway.table.registry import Registry

_KEYS_BYTES = MAX_KEYS * MOST_KEY_BYTES + 64 * 1024
"""As long as a namespace's keys can be: word of a key that was taken away is never too long to be taken."""
_SETTLE_SECONDS = 10.0


class KeyHandlers:
    """`/v1/keys`."""

    def __init__(self, registry: Registry, callers: Callers) -> None:
        self._registry = registry
        self._callers = callers

    def routes(self) -> list[web.RouteDef]:
        """What is answered here."""
        return [
            web.get("/v1/keys", self._get),
            web.put("/v1/keys/{namespace}", self._put),
            web.delete("/v1/keys/{namespace}", self._delete),
        ]

    async def _put(self, request: web.Request) -> web.Response:
        self._callers.require_operator(request)
        namespace = request.match_info["namespace"]
        try:
            change = KeyChange.model_validate_json(await read_body(request, _KEYS_BYTES))
            require_same("InvalidKeys", namespace, change.namespace)
            self._registry.change_keys(change)
        except (RequestRefused, ValidationError, Invalid):
            self._registry.lock_keys(namespace)
            with contextlib.suppress(Unavailable):
                # HAProxy lets nobody in any more before the operator is told why.
                await self._registry.wait_until_settled(_SETTLE_SECONDS)
            raise
        await self._registry.wait_until_stored(_SETTLE_SECONDS)
        await self._registry.wait_until_settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    async def _delete(self, request: web.Request) -> web.Response:
        self._callers.require_operator(request)
        self._registry.forget_keys(request.match_info["namespace"])
        await self._registry.wait_until_stored(_SETTLE_SECONDS)
        await self._registry.wait_until_settled(_SETTLE_SECONDS)
        return web.Response(status=204)

    async def _get(self, request: web.Request) -> web.Response:
        self._callers.require_operator(request)
        return json_response(
            KeyDigests(digests={name: keys.digest for name, keys in self._registry.table.told_keys.items()})
        )
