"""From pydantic models to Kubernetes structural schemas."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from penstock.api.meta import Condition
from penstock.api.pod_template import Opaque
from penstock.api.rules import FIELD_RULES, MODEL_RULES

Schema = dict[str, Any]
"""An OpenAPI v3 schema as Kubernetes reads it: a tree of JSON values, built here and only written out."""

_KEPT: Final = (
    "type", "format", "anyOf", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum",
    "x-kubernetes-int-or-string",
)  # fmt: skip


def object_schema(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """The schema of a model's object, closed by pruning: a structural schema names each field that may be there.

    Args:
        model: the type; its fields' constraints, defaults and docstrings are all used.
        defaults: whether the API server fills fields in. Not in a status, which only its owner writes.
    """
    properties = {}
    required = []
    for name, field in model.model_fields.items():
        alias = field.alias or name
        properties[alias] = _field_schema(model, name, field, defaults=defaults)
        if field.is_required():
            required.append(alias)
    schema: Schema = {"description": _summary(model), "type": "object"}
    if required:
        schema["required"] = required
    schema["properties"] = properties
    _add_rules(schema, MODEL_RULES.get(model, ()))
    return schema


def _field_schema(model: type[BaseModel], name: str, field: FieldInfo, *, defaults: bool) -> Schema:
    # FieldInfo keeps constraints apart from the annotation; joined again they are the type as written.
    annotation: Any = field.annotation
    for constraint in field.metadata:
        annotation = Annotated[annotation, constraint]
    schema = _type_schema(annotation, defaults=defaults)
    if field.description:
        schema = {**schema, "description": inspect.cleandoc(field.description)}
    if defaults and not field.is_required():
        value = field.get_default(call_default_factory=True)
        schema |= {} if value is None else {"default": _default(value)}
    _add_rules(schema, FIELD_RULES.get((model, name), ()))
    return _order(schema)


def _type_schema(annotation: Any, *, defaults: bool) -> Schema:
    """The schema of one type: a model, a sequence, a map or a scalar. `X | None` is X: absence needs no `null`."""
    if any(isinstance(each, Opaque) for each in getattr(annotation, "__metadata__", ())):
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    bare, origin = _strip(annotation)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        return object_schema(bare, defaults=defaults)
    if origin in (Union, types.UnionType):
        (inner,) = [arg for arg in get_args(bare) if arg is not type(None)]
        return _type_schema(inner, defaults=defaults)
    if origin is tuple:
        return _array_schema(annotation, get_args(bare)[0], defaults=defaults)
    if origin is dict:
        return _map_schema(annotation, get_args(bare)[1], defaults=defaults)
    return _scalar_schema(annotation)


def _strip(annotation: Any) -> tuple[Any, Any]:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation, get_origin(annotation)


def _array_schema(annotation: Any, item: Any, *, defaults: bool) -> Schema:
    # The bounds are also what the API server reckons a rule's cost from.
    generated = TypeAdapter(annotation).json_schema()
    bounds: Schema = {key: generated[key] for key in ("minItems", "maxItems") if key in generated}
    schema: Schema = {"type": "array", **bounds, "items": _type_schema(item, defaults=defaults)}
    if item is Condition:
        schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return schema


def _map_schema(annotation: Any, value: Any, *, defaults: bool) -> Schema:
    # As with an array, the bounds are also what the API server reckons a rule's cost from.
    generated = TypeAdapter(annotation).json_schema()
    bounds: Schema = {key: generated[key] for key in ("minProperties", "maxProperties") if key in generated}
    return {"type": "object", **bounds, "additionalProperties": _type_schema(value, defaults=defaults)}


def _scalar_schema(annotation: Any) -> Schema:
    generated = TypeAdapter(annotation).json_schema()
    if "const" in generated:
        return {"type": "string", "enum": [generated["const"]]}
    return {key: generated[key] for key in _KEPT if key in generated}


def _default(value: object) -> Any:
    # Objects are written out: the API server runs the rules over a default before it fills in the fields of it.
    return to_jsonable_python(value, by_alias=True, exclude_none=True)


def _summary(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "")


def _add_rules(schema: Schema, rules: Sequence[Any]) -> None:
    if rules:
        schema["x-kubernetes-validations"] = [
            *schema.get("x-kubernetes-validations", []),
            *(rule.to_schema() for rule in rules),
        ]


def _order(schema: Mapping[str, Any]) -> Schema:
    """Description first and children last, as people read it."""
    first = ("description", "type", "default")
    last = ("properties", "items", "additionalProperties", "x-kubernetes-validations")
    middle = [key for key in schema if key not in (*first, *last)]
    return {key: schema[key] for key in (*first, *middle, *last) if key in schema}
