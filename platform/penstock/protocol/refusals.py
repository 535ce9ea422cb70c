"""Why a request is not answered with tensors, and with which HTTP status it is told so."""

from __future__ import annotations

from enum import StrEnum

import orjson

from penstock.errors import Invalid, PenstockError


class Refusal(StrEnum):
    """Every reason for which a request gets an error."""

    BAD_REQUEST = "BadRequest"
    """Known before a run: it is no request that this model's signature takes."""
    MODEL_REFUSED = "ModelRefused"
    """The signature takes it, and the model does not."""
    NOT_FOUND = "NotFound"
    METHOD_NOT_ALLOWED = "MethodNotAllowed"
    TIMED_OUT_READING = "RequestTimeout"
    LENGTH_TOO_LARGE = "BodyTooLarge"
    UNSUPPORTED_ENCODING = "UnsupportedEncoding"
    EXPECTATION_FAILED = "ExpectationFailed"
    HEADERS_TOO_LARGE = "HeadersTooLarge"
    QUEUE_FULL = "QueueFull"
    OVERLOADED = "Overloaded"
    NOT_REPRESENTABLE = "NotRepresentable"
    ENGINE_FAILED = "EngineFailed"
    DRAINING = "Draining"
    NOT_A_GATEWAY = "NotAGateway"
    EXPIRED = "DeadlineExceeded"


STATUS: dict[str, int] = {
    Refusal.BAD_REQUEST: 400,
    Refusal.MODEL_REFUSED: 400,
    Refusal.NOT_A_GATEWAY: 403,
    Refusal.NOT_FOUND: 404,
    Refusal.METHOD_NOT_ALLOWED: 405,
    Refusal.NOT_REPRESENTABLE: 406,
    Refusal.TIMED_OUT_READING: 408,
    Refusal.LENGTH_TOO_LARGE: 413,
    Refusal.UNSUPPORTED_ENCODING: 415,
    Refusal.EXPECTATION_FAILED: 417,
    Refusal.HEADERS_TOO_LARGE: 431,
    Refusal.QUEUE_FULL: 429,
    Refusal.OVERLOADED: 429,
    Refusal.ENGINE_FAILED: 500,
    Refusal.DRAINING: 503,
    Refusal.EXPIRED: 504,
}
"""HTTP status by refusal."""


def status_of(error: PenstockError) -> int:
    """The HTTP status for an error; 500 for a reason that is not a refusal."""
    return STATUS.get(error.reason, 500)


def is_fault(reason: str) -> bool:
    """Whether a refusal for this reason is the server's fault, not the request's."""
    return STATUS.get(reason, 500) >= 500  # noqa: PLR2004 -- HTTP's own division


def may_blame_model(reason: str) -> bool:
    """Whether another model, asked the same, might have answered: a fault, or a request that does not suit this one."""
    return is_fault(reason) or reason in {Refusal.BAD_REQUEST, Refusal.MODEL_REFUSED, Refusal.NOT_REPRESENTABLE}


class Deferred(Invalid):
    """There is no room for a request now; later there is. What a protocol says of when to come again is `retry_after_seconds`."""

    def __init__(self, reason: Refusal, message: str, retry_after_seconds: int) -> None:
        super().__init__(reason, f"{message}; try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class QueueFull(Deferred):
    """More requests wait than may.

    Args:
        retry_after_seconds: when there should be room again.
    """

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(Refusal.QUEUE_FULL, "the queue is full", retry_after_seconds)


class TooLate(Deferred):
    """Behind what is there already, a request would be answered later than it should be.

    Args:
        due_seconds: within how long it should be.
        retry_after_seconds: when there should be room again.
    """

    def __init__(self, due_seconds: float, retry_after_seconds: int) -> None:
        message = f"the replica is busy: the answer would not come within {due_seconds * 1000:.3g} ms"
        super().__init__(Refusal.OVERLOADED, message, retry_after_seconds)


def error_document(message: str) -> bytes:
    """The protocol's error body: `{"error": "..."}`."""
    return orjson.dumps({"error": message})


class MethodNotAllowed(Invalid):
    """A path takes another method.

    Args:
        path: as it was asked for.
        method: that it takes.
        hint: what to do instead.
    """

    def __init__(self, path: str, method: str, hint: str = "") -> None:
        super().__init__(Refusal.METHOD_NOT_ALLOWED, f"{path} takes {method}" + (f": {hint}" if hint else ""))
        self.allowed = "GET, HEAD" if method == "GET" else method
        """What `Allow` says (RFC 9110 section 15.5.6)."""


def not_found(path: str, who: str, model: str, namespace: str) -> Invalid:
    """An error for a path at which there is nothing.

    Args:
        path: as it was asked for.
        who: says so, such as `this replica`.
        model: what is served, with its version where that is known.
        namespace: the model's.
    """
    return Invalid(
        Refusal.NOT_FOUND, f"there is nothing at {path}: {who} serves model {model} of namespace '{namespace}'"
    )


def bad_request(message: str) -> Invalid:
    """An error for input that is wrong."""
    return Invalid(Refusal.BAD_REQUEST, message)


def unfit_for_model(message: str) -> Invalid:
    """An error for input that the signature takes, and the model or its engine does not."""
    return Invalid(Refusal.MODEL_REFUSED, message)
