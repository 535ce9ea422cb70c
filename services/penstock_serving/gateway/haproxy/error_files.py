"""What HAProxy itself answers, in the protocol's form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from penstock_serving.gateway.haproxy.grpc_rules import reply_words

ERRORS: Mapping[int, str] = {
    400: "the request is malformed",
    401: "the request is not authenticated",
    403: "the request is not allowed",
    404: "there is no such path",
    405: "the method is not allowed here",
    408: "the request did not arrive in time",
    413: "the request's body is larger than this gateway takes",
    429: "too many requests or connections from this client",
    500: "the gateway failed",
    502: "the replica's answer is malformed",
    503: "no replica could answer",
    504: "the replica did not answer in time",
}
"""What HAProxy itself says, by status."""
BY_FILE = (400, 405, 408, 500)
"""What HAProxy says of what is no HTTP, too: for that it takes files alone. Each other reply is a call's where one is answered."""
_RETRY_AFTER = (429, 503)


def error_reply(status: int) -> str:
    """HAProxy's own answer, in the protocol's form, or in gRPC's."""
    retry = " hdr retry-after 1" if status in _RETRY_AFTER else ""
    return f"{reply_words(status, ERRORS[status])} hdr cache-control no-store hdr connection close{retry}"


def error_file(status: int) -> bytes:
    """HAProxy's own answer, as it goes over the wire, in the protocol's form."""
    body = json.dumps({"error": ERRORS[status]}).encode()
    retry = "retry-after: 1\r\n" if status in _RETRY_AFTER else ""
    # HTTPStatus of Python 3.11 has an older phrase for 413; a phrase has no meaning in HTTP anyway.
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
        f"{retry}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
