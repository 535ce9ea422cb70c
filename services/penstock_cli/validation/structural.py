"""The API server's reading of an object against a structural schema: strict decoding, defaults, validation.

Field paths and messages are the API server's own (kube-openapi and apimachinery's `field.Error`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, Final

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from penstock.api.meta import Manifest
from penstock.api.metadata import normal_metadata
from penstock.api.problems import Problem, child, path_of, wrong_type
from penstock.api.schema import Schema

_INT64: Final = range(-(2**63), 2**63)


def _is_integer(_checker: object, value: Any) -> bool:
    """Whole, and small enough that Go's JSON reader does not make a float of it."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole and not isinstance(value, bool) and int(value) in _INT64


_Validator: Final = extend(  # type: ignore[no-untyped-call]  # jsonschema's stubs leave it untyped
    Draft7Validator, type_checker=Draft7Validator.TYPE_CHECKER.redefine("integer", _is_integer)
)


def unknown_fields(value: Any, schema: Schema, path: str = "") -> Iterator[Problem]:
    """Every field that the schema does not name, which strict validation refuses."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown_fields(item, schema.get("items", {}), f"{path}[{index}]")
    if not isinstance(value, dict) or "properties" not in schema:
        return
    for key, inner in value.items():
        if key in schema["properties"]:
            yield from unknown_fields(inner, schema["properties"][key], child(path, key))
        else:
            known = ", ".join(schema["properties"])
            yield Problem(child(path, key), f'unknown field "{child(path, key)}": known here: {known}')


def with_defaults(value: Any, schema: Schema) -> Any:
    """A copy with nulls dropped and defaults filled in, as the API server stores it."""
    if isinstance(value, list):
        return [with_defaults(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return copy.deepcopy(value)
    properties: dict[str, Schema] = schema.get("properties", {})
    others = schema.get("additionalProperties")
    filled = {key: inner for key, inner in value.items() if inner is not None or not (key in properties or others)}
    for key, inner in properties.items():
        if "default" in inner:
            filled.setdefault(key, inner["default"])
    other = others if isinstance(others, dict) else {}
    return {key: with_defaults(inner, properties.get(key, other)) for key, inner in filled.items()}


def stored_form(manifest: Manifest, schema: Schema) -> Any:
    """The object as the API server stores it: defaults filled in, and no status, which an apply cannot write."""
    written = {key: value for key, value in manifest.items() if key != "status"}
    return with_defaults({**written, "metadata": normal_metadata(manifest.get("metadata") or {})}, schema)


def violations(value: Any, schema: Schema) -> list[Problem]:
    """What the schema refuses, in the order of the fields."""
    errors = sorted(_Validator(schema).iter_errors(value), key=lambda error: [str(p) for p in error.absolute_path])
    return [problem for error in errors for problem in _problems(error)]


def _problems(error: ValidationError) -> Iterator[Problem]:
    path = path_of(error.absolute_path)
    value: Any = error.instance
    limit: Any = error.validator_value
    body = f"{path} in body"
    match error.validator:
        case "required":
            missing = [name for name in limit if name not in value]
            # jsonschema reports each missing field apart, and names it only in its message.
            (name,) = [name for name in missing if error.message.startswith(f"{name!r} ")]
            yield Problem(child(path, name), "Required value")
        case "enum":
            wanted = ", ".join(json.dumps(item) for item in limit)
            yield Problem(path, f"Unsupported value: {json.dumps(value)}: supported values: {wanted}")
        case "minimum":
            yield _invalid(path, value, f"{body} should be greater than or equal to {limit}")
        case "maximum":
            yield _invalid(path, value, f"{body} should be less than or equal to {limit}")
        case "maxLength":
            yield Problem(path, f"Too long: may not be more than {limit} bytes")
        case "minItems":
            yield _invalid(path, len(value), f"{body} should have at least {limit} items")
        case "maxItems" | "maxProperties":
            yield Problem(path, f"Too many: {len(value)}: must have at most {limit} items")
        case "type":
            yield wrong_type(path, value, str(limit))
        case "anyOf":
            yield wrong_type(path, value, "integer,string")
        case _:
            yield _invalid(path, value, error.message)


def _invalid(path: str, value: Any, message: str) -> Problem:
    return Problem(path, f"Invalid value: {json.dumps(value)}: {message}")
