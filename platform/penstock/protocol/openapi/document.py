"""The document: which paths there are, what each takes, and every status that it answers with."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from math import prod
from typing import Any, Final

import orjson

import penstock
from penstock.protocol.openapi.schemas import Schema, refer, schemas
from penstock.protocol.server import OPENAPI, REPOSITORY_INDEX, TRACE_SETTING
from penstock.serving.manifest import DataType, Signature

_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"
_HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_READING: Final = (400, 408, 431)
"""What any request may get that is wrong as HTTP."""
_BODY: Final = (413, 415, 417)
_INFERENCE: Final = (404, 406, 429, 500, 503, 504)
_GATEWAY: Final = (401, 403, 404, 429, 500, 502, 503, 504)
"""What a gateway may say of any path, or HAProxy for it."""
_MOST_OF_AN_EXAMPLE: Final = 1024
_ELEMENTS: Final[dict[DataType, bool | str]] = {DataType.BOOL: False, DataType.BYTES: ""}
_DESCRIPTION: Final = (
    "The Open Inference Protocol v2 over HTTP, and those of Triton's extensions that `GET /v2` names. A model's requests may be "
    "compressed (`Content-Encoding`: gzip or deflate), and answers are where `Accept-Encoding` asks for it."
)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The one model of a replica."""

    name: str
    version: str
    signature: Signature


def openapi_document(namespace: str, model: ServedModel | None = None) -> bytes:
    """OpenAPI 3.1, in JSON.

    Args:
        namespace: whose models are at paths that name none.
        model: the one that a replica serves; None: a gateway's document, of whatever models it has.
    """
    other = () if model is not None else _GATEWAY
    paths = {
        "/v2": _get("What the server is", "server_metadata", other=other),
        "/v2/health/live": _get("Whether the server lives", "live", other=other),
        "/v2/health/ready": _get("Whether requests would be answered", "ready", (503,), other=other),
        TRACE_SETTING: _get("What is set of traces", "trace_settings", other=other),
        REPOSITORY_INDEX: {"post": _index(other)},
        OPENAPI: _get("This document", None, other=other),
        "/v2/models/{model}/trace/setting": _get("What is set of traces", "trace_settings", (404,), model, other=other),
        **_model_paths("/v2/models/{model}", model, other),
        **_model_paths("/v2/models/{model}/versions/{version}", model, other),
    }
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Penstock", "version": penstock.__version__, "description": _DESCRIPTION},
        "servers": [{"url": "/"}, {"url": "/{namespace}", "variables": {"namespace": {"default": namespace}}}],
        "paths": paths,
        "components": {"schemas": schemas(model.signature if model is not None else None)},
    }
    return orjson.dumps(document)


def _model_paths(path: str, model: ServedModel | None, other: tuple[int, ...]) -> dict[str, Schema]:
    versioned = path.endswith("{version}")
    asked = {
        "": _get("What the model takes and gives", "model_metadata", (404,), model, versioned=versioned, other=other),
        "/ready": _get(
            "Whether the model would answer", "model_ready", (404, 503), model, versioned=versioned, other=other
        ),
        "/config": _get("How it is configured", "model_configuration", (404,), model, versioned=versioned, other=other),
        "/stats": _get("What its requests took", None, (404,), model, versioned=versioned, other=other),
        "/infer": {"post": _infer(other, _example(model)), "parameters": _parameters(model, versioned=versioned)},
    }
    return {path + rest: item for rest, item in asked.items()}


def _get(
    summary: str,
    answer: str | None,
    errors: tuple[int, ...] = (),
    model: ServedModel | None = None,
    *,
    versioned: bool | None = None,
    other: tuple[int, ...],
) -> Schema:
    content: Schema = refer(answer) if answer is not None else {"type": "object"}
    operation: Schema = {"summary": summary, "responses": _responses(content, (*errors, *other))}
    if answer == "ready":
        operation["responses"]["503"]["content"][_JSON]["schema"] = {"anyOf": [content, refer("error")]}
    named = {"parameters": _parameters(model, versioned=bool(versioned))} if 404 in errors else {}  # noqa: PLR2004 -- a model's
    # HEAD gets what GET does, without its body.
    return {"get": operation, "head": _head(operation), **named}


def _head(operation: Schema) -> Schema:
    responses = {status: {"description": each["description"]} for status, each in operation["responses"].items()}
    return {"summary": operation["summary"], "responses": responses}


def _parameters(model: ServedModel | None, *, versioned: bool) -> list[Schema]:
    def parameter(name: str, value: str | None) -> Schema:
        schema = {"type": "string", "minLength": 1, "pattern": "^[^%/?#]+$"} if value is None else {"enum": [value]}
        return {"name": name, "in": "path", "required": True, "schema": schema}

    named = [parameter("model", model.name if model is not None else None)]
    if versioned:
        named.append(parameter("version", model.version if model is not None else None))
    return named


def _index(other: tuple[int, ...]) -> Schema:
    return {
        "summary": "Which models there are, as far as the caller may ask them",
        "requestBody": {"content": {_JSON: {"schema": refer("repository_index_request")}}},
        "responses": _responses(refer("repository_index"), (*_BODY, *other)),
    }


def _example(model: ServedModel | None) -> Schema:
    """A request of one row that a replica's model takes, if it is short."""
    inputs = []
    for spec in model.signature.inputs if model is not None else ():
        shape = [max(length, 1) for length in spec.shape]
        count = prod(shape)
        if spec.any_rank or count > _MOST_OF_AN_EXAMPLE:
            return {}
        element = _ELEMENTS.get(spec.datatype, 0)
        inputs.append({"name": spec.name, "datatype": spec.datatype.value, "shape": shape, "data": [element] * count})
    return {"example": {"inputs": inputs}} if inputs else {}


def _infer(other: tuple[int, ...], example: Schema) -> Schema:
    binary = {"schema": {"type": "string", "format": "binary"}}
    responses = _responses(refer("inference_response"), (*_BODY, *_INFERENCE, *other))
    responses["200"]["content"][_BINARY] = binary
    return {
        "summary": "Run the model",
        "description": (
            f"Binary tensors follow the JSON, whose length is `{_HEADER_LENGTH}` then; each says its own by the parameter "
            "`binary_data_size`."
        ),
        "parameters": [
            {"name": _HEADER_LENGTH, "in": "header", "schema": {"type": "integer", "minimum": 0, "maximum": 2**53}}
        ],
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": refer("inference_request"), **example}, _BINARY: binary},
        },
        "responses": responses,
    }


def _responses(content: Schema, errors: tuple[int, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"200": {"description": "OK", "content": {_JSON: {"schema": content}}}}
    for status in sorted({*_READING, *errors}):
        found[str(status)] = {"description": HTTPStatus(status).phrase, "content": {_JSON: {"schema": refer("error")}}}
    return found
