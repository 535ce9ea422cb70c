"""What replicas and gateways say alike of the server: its metadata, and what is set of its traces."""

from __future__ import annotations

from typing import Final

import orjson

import penstock
from penstock.protocol.refusals import MethodNotAllowed

EXTENSIONS: Final = ("binary_tensor_data", "classification", "model_configuration", "parameters", "schedule_policy")
"""Triton's, by its names, those alone that are there as a whole: of `model_repository` and `trace` only what looks is."""
TRACE_SETTING: Final = "/v2/trace/setting"
OPENAPI: Final = "/v2/openapi.json"
REPOSITORY_INDEX: Final = "/v2/repository/index"
TRACES_ARE_SET: Final = (
    "traces are set by spec.tracing of the InferenceDeployment and by OTEL_* variables, not by clients"
)


def server_metadata() -> bytes:
    """The answer to `GET /v2`."""
    return orjson.dumps({"name": "penstock", "version": penstock.__version__, "extensions": EXTENSIONS})


def trace_settings(*, exported: bool) -> bytes:
    """The answer to `GET …/trace/setting`.

    How many traces are kept is no setting of the server's: callers sample, and a deployment says what share of those that do not.

    Args:
        exported: whether spans go anywhere.
    """
    level = "TIMESTAMPS" if exported else "OFF"
    return orjson.dumps({"trace_level": [level], "trace_mode": "opentelemetry", "trace_count": "-1"})


def trace_change_refused(path: str) -> MethodNotAllowed:
    """The answer to `POST …/trace/setting`."""
    return MethodNotAllowed(path, "GET", TRACES_ARE_SET)
