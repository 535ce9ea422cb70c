"""Paths of the protocol that name no model: what the server is, whether it is ready, and which models it has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web

from penstock.errors import Invalid, Unavailable
from penstock.protocol.openapi.document import openapi_document
from penstock.protocol.refusals import MethodNotAllowed, status_of
from penstock.protocol.repository import read_index_request, write_index
from penstock.protocol.server import (
    OPENAPI,
    REPOSITORY_INDEX,
    TRACE_SETTING,
    server_metadata,
    trace_change_refused,
    trace_settings,
)
from penstock_serving.gateway.access.gatekeeper import Gatekeeper
from penstock_serving.gateway.answers import document, error, wrong_method
from penstock_serving.gateway.haproxy.access_rules import NO_PATH
from penstock_serving.gateway.holding.calls import BODY
from penstock_serving.gateway.holding.waiting import Holding
from penstock_serving.gateway.readiness import Readiness
from penstock_serving.gateway.table.registry import Registry
from penstock_serving.gateway.table.standing import list_index

_MOST_OF_AN_INDEX_REQUEST: Final = 4096
_NOT_FOUND, _UNSUPPORTED, _UNAVAILABLE = 404, 415, 503
_LIVE, _READY = "/v2/health/live", "/v2/health/ready"


class OwnPaths:
    """Answers them.

    Args:
        registry: which models there are.
        holding: whose memory bodies take.
        readiness: of this gateway.
        gatekeeper: says who may know of which model.
        default_namespace: of paths that name none.
        traced: whether spans go anywhere.
    """

    def __init__(
        self,
        registry: Registry,
        holding: Holding,
        readiness: Readiness,
        gatekeeper: Gatekeeper,
        *,
        default_namespace: str,
        traced: bool,
    ) -> None:
        self._registry = registry
        self._holding = holding
        self._readiness = readiness
        self._gatekeeper = gatekeeper
        self._traced = traced
        described = openapi_document(default_namespace)
        self._gets: dict[str, Callable[[], web.Response]] = {
            "/v2": lambda: document(server_metadata()),
            _LIVE: lambda: web.json_response({"live": True}),
            _READY: self._answer_readiness,
            OPENAPI: lambda: document(described),
            TRACE_SETTING: lambda: document(trace_settings(exported=self._traced)),
        }
        self._posts: dict[str, Callable[[web.Request, str], Awaitable[web.Response]]] = {
            REPOSITORY_INDEX: self._index,
            TRACE_SETTING: self._refuse_trace_settings,
        }

    async def answer(self, request: web.Request, namespace: str) -> web.Response:
        """The answer to a request whose path names no model.

        Raises:
            AccessDenied: the caller may not know of the namespace's models.
            Unavailable: that cannot be decided now.
        """
        path = request.path.rstrip("/")
        get, post = self._gets.get(path), self._posts.get(path)
        if get is not None and request.method in (hdrs.METH_GET, hdrs.METH_HEAD):
            return get()
        if post is not None and request.method == hdrs.METH_POST:
            return await post(request, namespace)
        if get is None and post is None:
            return error(_NOT_FOUND, NO_PATH)
        return wrong_method(MethodNotAllowed(request.path, "POST" if get is None else "GET"))

    def _answer_readiness(self) -> web.Response:
        ready = self._readiness.complaint() is None
        return web.json_response({"ready": ready}, status=200 if ready else _UNAVAILABLE)

    async def _refuse_trace_settings(self, request: web.Request, _: str) -> web.Response:
        return wrong_method(trace_change_refused(request.path))

    async def _index(self, request: web.Request, namespace: str) -> web.Response:
        """The namespace's models, as far as the caller may ask them."""
        if not self._readiness.complete:
            raise Unavailable("RoutesUnknown", "this gateway does not know yet which models there are")
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            response = error(_UNSUPPORTED, "send this body as it is: only a model's requests may be compressed")
            response.headers[hdrs.ACCEPT_ENCODING] = "identity"
            return response
        visible = await self._gatekeeper.choose_visible(request.headers, namespace)
        with self._holding.body(namespace) as body:
            try:
                if BODY not in request:
                    await body.read(request.content, _MOST_OF_AN_INDEX_REQUEST)
                ready_only = read_index_request(request.get(BODY, body.data))
            except Invalid as invalid:
                return error(status_of(invalid), invalid.message)
        entries = list_index(self._registry.table, visible, self._registry.descriptions.find_version)
        return document(write_index(entries, ready_only=ready_only))
