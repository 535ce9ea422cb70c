"""JSON Schemas of the protocol's documents. What a client writes may be null wherever it may be left out."""

from __future__ import annotations

from typing import Any, Final

from penstock.protocol.limits import LAST_PRIORITY, MOST_AXES, MOST_CLASSES
from penstock.serving.manifest import DataType, Signature, TensorSpec

Schema = dict[str, Any]

_STRING: Final[Schema] = {"type": "string"}
_INTEGERS: Final[Schema] = {"type": "array", "items": {"type": "integer"}}
_MOST_INTEGER: Final = 2**63 - 1


def refer(name: str) -> Schema:
    """A reference to one of `schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(kind: str, **more: Any) -> Schema:
    """A value of a type, or null."""
    return {"type": [kind, "null"], **more}


def _object(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


def schemas(signature: Signature | None) -> dict[str, Schema]:
    """All schemas by name.

    Args:
        signature: of the one model that is spoken of; None: of any.
    """
    return {
        "error": _object(("error",), error=_STRING),
        "server_metadata": _object(
            ("name", "version", "extensions"),
            name=_STRING,
            version=_STRING,
            extensions={"type": "array", "items": _STRING},
        ),
        "live": _object(("live",), live={"type": "boolean"}),
        "ready": _object(("ready",), ready={"type": "boolean"}),
        "model_ready": _object(("name", "ready"), name=_STRING, ready={"const": True}),
        "tensor_metadata": _object(
            ("name", "datatype", "shape"),
            name=_STRING,
            datatype=_datatypes(tuple(DataType)),
            shape={"type": ["array", "null"], "items": {"type": "integer", "minimum": -1}},
            parameters={"type": "object"},
        ),
        "model_metadata": _object(
            ("name", "versions", "platform", "inputs", "outputs"),
            name=_STRING,
            versions={"type": "array", "items": _STRING},
            platform=_STRING,
            inputs={"type": "array", "items": refer("tensor_metadata")},
            outputs={"type": "array", "items": refer("tensor_metadata")},
            parameters={"type": "object"},
        ),
        "model_configuration": _object(
            ("name", "platform", "max_batch_size", "input", "output"),
            name=_STRING,
            platform=_STRING,
            max_batch_size={"type": "integer", "minimum": 0},
            input={"type": "array", "items": refer("configured_tensor")},
            output={"type": "array", "items": refer("configured_tensor")},
        ),
        "configured_tensor": _object(
            ("name", "data_type"), name=_STRING, data_type={"type": "string", "pattern": "^TYPE_"}, dims=_INTEGERS
        ),
        "trace_settings": {
            "type": "object",
            "additionalProperties": {"oneOf": [_STRING, {"type": "array", "items": _STRING}]},
        },
        "repository_index_request": {"type": "object", "properties": {"ready": nullable("boolean")}},
        "repository_index": {"type": "array", "items": refer("repository_entry")},
        "repository_entry": _object(
            ("name", "state", "reason"),
            name=_STRING,
            version=_STRING,
            state={"enum": ["READY", "UNAVAILABLE"]},
            reason=_STRING,
        ),
        "tensor_data": {
            "type": "array",
            "items": {"anyOf": [{"type": ["number", "string", "boolean"]}, refer("tensor_data")]},
        },
        **_inference(signature),
    }


def _inference(signature: Signature | None) -> dict[str, Schema]:
    inputs = (*signature.inputs, *signature.optional) if signature is not None else ()
    taken = [_request_input(each) for each in inputs]
    output: Schema = {"enum": [each.name for each in signature.outputs]} if signature is not None else _STRING
    return {
        "request_input": {"anyOf": taken} if taken else _request_input(None),
        "request_output": _object(
            ("name",),
            name=output,
            parameters=nullable(
                "object",
                properties={
                    "binary_data": nullable("boolean"),
                    "classification": nullable("integer", minimum=0, maximum=MOST_CLASSES),
                },
            ),
        ),
        "inference_request": _object(
            ("inputs",),
            id=nullable("string"),
            parameters=nullable(
                "object",
                properties={
                    "timeout": nullable("integer", minimum=0, maximum=_MOST_INTEGER),
                    "priority": nullable("integer", minimum=0, maximum=LAST_PRIORITY),
                    "binary_data_output": nullable("boolean"),
                },
            ),
            inputs={"type": "array", "minItems": 1, "items": refer("request_input")},
            outputs=nullable("array", items=refer("request_output")),
        ),
        "response_output": _object(
            ("name", "datatype", "shape"),
            name=output,
            datatype=_datatypes(tuple(DataType)),
            shape={"type": "array", "items": {"type": "integer", "minimum": 0}},
            parameters={"type": "object"},
            data=refer("tensor_data"),
        ),
        "inference_response": _object(
            ("model_name", "model_version", "outputs"),
            model_name=_STRING,
            model_version=_STRING,
            id=_STRING,
            outputs={"type": "array", "items": refer("response_output")},
        ),
    }


def _request_input(spec: TensorSpec | None) -> Schema:
    shape: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": MOST_AXES}
    if spec is not None and not spec.any_rank:
        shape |= {"minItems": len(spec.shape), "maxItems": len(spec.shape)}
    return _object(
        ("name", "datatype", "shape"),
        name={"const": spec.name} if spec is not None else _STRING,
        datatype=_datatypes((spec.datatype,) if spec is not None else tuple(DataType)),
        shape=shape,
        data={"anyOf": [refer("tensor_data"), {"type": "null"}]},
        parameters=nullable("object", properties={"binary_data_size": nullable("integer", minimum=0)}),
    )


def _datatypes(which: tuple[DataType, ...]) -> Schema:
    return {"enum": [each.value for each in which]}
