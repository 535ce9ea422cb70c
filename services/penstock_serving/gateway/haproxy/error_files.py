"""What HAProxy itself answers, in the protocol's form."""

from __future__ import annotations

from collections.abc import Mapping

from penstock_serving.gateway.haproxy.grpc_rules import reply_words

ERRORS: Mapping[int, str] = {
    400: "the request is malformed",
    401: "the request is not authenticated",
    403: "the request is not allowed",
    404: "there is no such path",
    405: "the method is not allowed here",
    408: "the request did not arrive in time",
    413: "the request's body is larger than {max_body_bytes} bytes, the most that this gateway takes (chart: gateway.maxBodyBytes)",
    429: "too many requests or connections from this client",
    500: "the gateway failed",
    502: "the replica's answer is malformed",
    503: "no replica could answer",
    504: "the replica did not answer in time",
}
"""What HAProxy itself says, by status; `{max_body_bytes}` is the gateway's. Of what is no HTTP its parser speaks words of its own, which nothing changes."""
_RETRY_AFTER = (429, 503)


def error_reply(status: int, max_body_bytes: int) -> str:
    """HAProxy's own answer, in the protocol's form, or in gRPC's."""
    words = ERRORS[status].format(max_body_bytes=max_body_bytes)
    retry = " hdr retry-after 1" if status in _RETRY_AFTER else ""
    return f"{reply_words(status, words)} hdr cache-control no-store hdr connection close{retry}"
