"""What a refusal of Kubernetes' API means to the operator."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from penstock.errors import Conflict, Invalid, PenstockError, Unavailable
from penstock_operator.runtime.cluster import DENIED, Gone, NotFound

_OF_A_POLICY: Final = re.compile(r'^(?:admission webhook "[^"]*" denied the request|\S+ (?:"[^"]*" )?is forbidden: )')
"""How the API server begins to say that its admission refused an object: `ToStatusErr` of
k8s.io/apiserver/pkg/admission/plugin/webhook/errors, and `NewForbidden` of k8s.io/apimachinery/pkg/api/errors, which policies
in CEL begin with whatever their code. What breaks a schema "is invalid"."""

_MAY_PASS: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS})
_ERRORS: Final[Mapping[int, tuple[type[PenstockError], str]]] = {
    HTTPStatus.NOT_FOUND: (NotFound, "NotFound"),
    HTTPStatus.CONFLICT: (Conflict, "Conflict"),
    HTTPStatus.GONE: (Gone, "Gone"),
}
"""What a status means, and the reason where none is given."""


def error_of(status: int, body: bytes) -> PenstockError:
    """What an HTTP error means, in the API server's words.

    Not being allowed (401, 403) is `Unavailable`: it is the installation's fault and heals when that is mended. So is what a
    policy of the platform denies, whose code is whatever its author chose: 422 where a ValidatingAdmissionPolicy names no reason,
    400 where a webhook names no code.
    """
    reason, message = _read_refusal(body)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unavailable(reason or "ApiUnavailable", message)
    if status in _MAY_PASS:
        return Unavailable(reason or "Refused", message)
    if _OF_A_POLICY.match(message):
        return Unavailable(DENIED, message)
    kind, otherwise = _ERRORS.get(status, (Invalid, "Invalid"))
    return kind(reason or otherwise, message)


def _read_refusal(body: bytes) -> tuple[str, str]:
    """Reason and message of a `metav1.Status`, or the bare text where something else answered."""
    try:
        status = json.loads(body)
        return str(status.get("reason") or ""), str(status.get("message") or "")
    except (ValueError, AttributeError):
        return "", body.decode(errors="replace")[:500]
