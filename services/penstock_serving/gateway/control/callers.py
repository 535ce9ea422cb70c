"""Who calls the control port, and what is read of it.

Whoever reaches the port may send anything, so a token is looked at before a body is: one that does not hold costs a look at the
request's head and one short answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from aiohttp import hdrs, web
from pydantic import ValidationError
from pydantic_core import from_json

from penstock.errors import Conflict, Invalid, PenstockError, Unavailable
from penstock.models import Frozen
from penstock.routing.table import Replica
from penstock.routing.tokens import (
    TokenSubject,
    admin_token,
    former_admin_token,
    former_replica_token,
    matches,
    may_be_former,
    subject_of,
)
from penstock_serving.gateway.settings import GatewaySettings

logger = logging.getLogger(__name__)
_BODY_SECONDS = 10.0
_REST_BYTES, _REST_SECONDS = 256 * 1024, 1.0
"""Of a refused request's body, that are taken so that its sender reads the answer; then the connection ends."""
_SCHEME = "Bearer "
_MOST_COMPLAINTS = 5
_STATUS: Mapping[type[PenstockError], int] = {Invalid: 400, Conflict: 403, Unavailable: 503}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RequestRefused(Exception):
    """The caller may not."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _failure(status: int, message: str) -> web.Response:
    headers = {401: {hdrs.WWW_AUTHENTICATE: "Bearer"}, 503: {hdrs.RETRY_AFTER: "1"}}.get(status, {})
    return web.json_response({"error": message}, status=status, headers=headers)


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as JSON."""
    response = await _answer(request, handler)
    if request.content.is_eof() or not request.can_read_body:
        return response
    # What is left of the body would be the next request. Its sender reads the answer rather if some of it is taken.
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    left = _REST_BYTES
    with contextlib.suppress(TimeoutError, web.RequestPayloadError):
        async with asyncio.timeout(_REST_SECONDS):
            while left > 0 and (chunk := await request.content.readany()):
                left -= len(chunk)
    return response


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestRefused as refused:
        return _failure(refused.status, str(refused))
    except ValidationError as invalid:
        found = invalid.errors(include_url=False, include_context=False, include_input=False)[:_MOST_COMPLAINTS]
        return _failure(400, "; ".join(f"{'.'.join(str(p) for p in e['loc']) or 'body'}: {e['msg']}" for e in found))
    except PenstockError as error:
        return _failure(_STATUS.get(type(error), 500), error.message)
    except web.HTTPException as known:
        return _failure(known.status, known.reason)
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        return _failure(500, "the gateway agent failed; its log says why")


async def read_body(request: web.Request, most: int) -> bytes:
    """The body, of a caller whose token holds. Raises `RequestRefused`: it is too large, or does not come."""
    too_large = RequestRefused(413, f"the body has more than {most} bytes")
    if (request.content_length or 0) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise RequestRefused(408, f"the body did not come within {_BODY_SECONDS:g} s") from None
    return bytes(body)


def token_of(request: web.Request) -> str:
    """The token that a caller shows. Raises `RequestRefused`: there is none, or it is none of ours."""
    header = request.headers.get(hdrs.AUTHORIZATION, "")
    if not header.startswith(_SCHEME):
        raise RequestRefused(401, "send the token as 'Authorization: Bearer TOKEN'")
    token = header.removeprefix(_SCHEME).strip()
    require(token.isascii())  # what is not cannot be compared
    return token


def require(holds: bool) -> None:  # noqa: FBT001 -- what is required is the whole sentence
    """Refuse a caller whose token does not hold. Raises `RequestRefused`."""
    if not holds:
        raise RequestRefused(403, "the token is not the one for this model or action")


def claimed_subject(body: bytes) -> TokenSubject:
    """Whose lease a body says to be, read with the least effort: its token is not known to hold yet. Raises `RequestRefused`."""
    said: Any
    try:
        said = from_json(body)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise RequestRefused(400, "body: this is no JSON object")
    namespace, model = said.get("namespace"), said.get("model")
    if not isinstance(namespace, str) or not isinstance(model, str):
        raise RequestRefused(400, "namespace, model: each must be a text")
    return TokenSubject(namespace, model)


class Callers:
    """Who may call, by the gateway's secret.

    Args:
        settings: the gateway's.
        trust: told of each connection on which a token was shown that holds.
    """

    def __init__(self, settings: GatewaySettings, trust: Callable[[asyncio.BaseTransport | None], None]) -> None:
        self._secret = settings.secret
        self._refuse_former = settings.refuse_former_tokens
        self._trust = trust

    def require_operator(self, request: web.Request) -> None:
        """Refuse whoever is not the operator. Raises `RequestRefused`."""
        token = token_of(request)
        require(matches(token, admin_token(self._secret)) or matches(token, former_admin_token(self._secret)))
        self._trust(request.transport)

    async def read_as_replica(self, request: web.Request, most: int, most_former: int) -> tuple[TokenSubject, bytes]:
        """Whose the token is that a replica shows, and the body that came with it.

        Args:
            request: a replica's.
            most: bytes of the body.
            most_former: likewise with a token of a former release, which says only together with the body whether it holds.

        Raises:
            RequestRefused: the token does not hold, or the body is too large.
        """
        token = token_of(request)
        subject = subject_of(self._secret, token)
        if subject is not None:
            self._trust(request.transport)
            return subject, await read_body(request, most)
        self._require_former(token)
        body = await read_body(request, most_former)
        subject = claimed_subject(body)
        require(matches(token, former_replica_token(self._secret, subject.namespace, subject.model)))
        return subject, body

    def select_own(self, request: web.Request, replicas: Iterable[Replica]) -> Replica | None:
        """Of these replicas, the one that the holder of the token may take out; None where none is its own.

        Raises:
            RequestRefused: the token does not hold, or not for this replica.
        """
        token = token_of(request)
        subject = subject_of(self._secret, token)
        if subject is not None:
            own = [each for each in replicas if each.key == (subject.namespace, subject.model)]
            require(all(not (subject.uid and each.uid) or subject.uid == each.uid for each in own))
        else:
            self._require_former(token)
            own = [each for each in replicas if matches(token, former_replica_token(self._secret, *each.key))]
        if subject is not None or own:
            self._trust(request.transport)
        return next(iter(own), None)

    def _require_former(self, token: str) -> None:
        require(may_be_former(token) and not self._refuse_former)


def json_response(model: Frozen, status: int = 200) -> web.Response:
    """A message of `penstock.routing` as a response."""
    return web.Response(status=status, text=model.model_dump_json(), content_type="application/json")


def require_same(reason: str, named: str, said: str) -> None:
    """Refuse a body that is about something else than the path. Raises `Invalid` with this reason."""
    if named != said:
        raise Invalid(reason, f"the path names {named}, the body {said}")
