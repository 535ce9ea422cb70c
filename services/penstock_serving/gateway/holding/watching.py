"""gRPC's `Health/Watch`: whether the gateway is ready, told at once and whenever that changes, for as long as a client listens.

Anyone may ask, so there are places for few. Who finds none is told that there is no such method: clients then go on as if the
gateway were well (gRPC's health checking protocol), while any other answer would make them believe it is not.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final

from aiohttp import web

from penstock.errors import Invalid
from penstock.protocol.refusals import Refusal, status_of
from penstock_serving.gateway.holding.calls import CallResponse, open_stream, read_question, refusal, send_raw
from penstock_serving.gateway.readiness import Readiness
from penstock_serving.gateway.settings import GatewaySettings
from penstock_serving.rpc import schema
from penstock_serving.rpc.codes import refusal_lines
from penstock_serving.rpc.documents import read_message
from penstock_serving.rpc.framing import frame
from penstock_serving.rpc.names import HEALTH, SERVICES

WATCH: Final = f"/{HEALTH}/Watch"
_LOOK_SECONDS: Final = 0.25
"""Readiness is a matter of HAProxy and of the clock, too, which tell nobody."""
_PLACES: Final = 16
"""Of so many calls over HTTP/2, one may be a watch."""
_LEAVING: Final = Invalid(Refusal.DRAINING, "this gateway is leaving: watch another")


class HealthWatch:
    """Answers it."""

    def __init__(self, settings: GatewaySettings, readiness: Readiness) -> None:
        self._readiness = readiness
        self._places = max(1, settings.requests_over_http2 // _PLACES)
        # HAProxy ends what is silent for longer.
        self._again_seconds = min(settings.request_timeout_seconds, settings.client_timeout_seconds) / 3

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one call, until its client goes or this gateway leaves."""
        try:
            service = read_message(schema.HealthCheckRequest, await read_question(request)).service
        except Invalid as error:
            return refusal(status_of(error), error.message)
        if not self._places:
            return refusal(
                HTTPStatus.METHOD_NOT_ALLOWED, "enough clients watch this gateway already: ask Check instead"
            )
        self._places -= 1
        try:
            return await self._tell(request, service)
        finally:
            self._places += 1

    async def _tell(self, request: web.Request, service: str) -> web.StreamResponse:
        await open_stream(request)
        told, told_at = "", 0.0
        clock = asyncio.get_running_loop().time
        while True:
            leaving = self._readiness.leaving
            status = self._status(service)
            if status != told or clock() - told_at >= self._again_seconds:
                told, told_at = status, clock()
                framed = frame(schema.HealthCheckResponse(status=status).SerializeToString())
                await send_raw(request, b"%x\r\n%b\r\n" % (len(framed), framed))
            if leaving:
                await send_raw(request, b"0\r\n%b\r\n" % refusal_lines(_LEAVING))
                return CallResponse.stand_for_sent(HTTPStatus.SERVICE_UNAVAILABLE)
            await asyncio.sleep(_LOOK_SECONDS)

    def _status(self, service: str) -> str:
        if service not in ("", *SERVICES):
            return "SERVICE_UNKNOWN"
        return "SERVING" if self._readiness.complaint() is None else "NOT_SERVING"
