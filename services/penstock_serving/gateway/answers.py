"""The agent's own answers, in the protocol's form."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import hdrs, web

from penstock.protocol.refusals import MethodNotAllowed


def error(status: int, message: str) -> web.Response:
    """An error; one that may go away by itself says when to come again."""
    again = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    headers = {hdrs.RETRY_AFTER: "1"} if again else {}
    return web.json_response({"error": message}, status=status, headers=headers)


def wrong_method(refusal: MethodNotAllowed) -> web.Response:
    """An error that says which methods a path takes."""
    response = error(HTTPStatus.METHOD_NOT_ALLOWED, refusal.message)
    response.headers[hdrs.ALLOW] = refusal.allowed
    return response


def document(body: bytes) -> web.Response:
    """An answer in JSON that is written already."""
    return web.Response(body=body, content_type="application/json")
