"""Reads in Serve's messages why something failed."""

from __future__ import annotations

import json
import re
from typing import Final

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.serving.arguments import FAILURE_MARKER, StartFailure

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_EXCEPTION: Final = re.compile(
    r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt|Exit|NotFound|Failed)\b.*$", re.MULTILINE
)
_LONGEST: Final = 500


def start_failure(message: str) -> StartFailure:
    """What a replica's constructor said, from Serve's message.

    Where it left no structured failure (an import failed, the actor died), the reason is `DeployFailed` and the message
    the exception's line, which a traceback ends with.
    """
    plain = _COLOURS.sub("", message)
    structured = _parse(plain)
    if structured is not None:
        return structured
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    exceptions = [line.strip() for line in _EXCEPTION.findall(plain)]
    line = exceptions[-1] if exceptions else (lines[-1] if lines else "Ray Serve gave no message")
    return StartFailure(reason=Reason.DEPLOY_FAILED, message=line[:_LONGEST])


def _parse(message: str) -> StartFailure | None:
    start = message.rfind(FAILURE_MARKER)
    if start < 0:
        return None
    try:
        content, _ = json.JSONDecoder().raw_decode(message, start + len(FAILURE_MARKER))
        failure = StartFailure.model_validate(content)
    except (json.JSONDecodeError, ValidationError):
        return None
    known = failure.reason if failure.reason in set(Reason) else Reason.REPLICA_FAILED
    return failure.model_copy(update={"reason": known, "message": failure.message[:_LONGEST]})
