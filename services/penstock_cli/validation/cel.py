"""CEL rules without an API server: cel-python, with those of Kubernetes' extensions that the rules use.

The only module that needs cel-python; `penstock_cli.validation.admission` imports it when something is to be validated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, Final

import celpy
from celpy import celtypes

from penstock.api.problems import Problem
from penstock.api.quantity import is_quantity, parse_quantity
from penstock.api.schema import Schema


def _quantity(text: Any) -> Any:
    if not is_quantity(str(text)):
        # cel-python makes of it the CEL error that `||` and `&&` absorb.
        raise ValueError(f"{text} is not a quantity")
    return text


def _comparison(holds: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    return lambda left, right: celtypes.BoolType(holds(parse_quantity(str(left)), parse_quantity(str(right))))


_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "isQuantity": lambda text: celtypes.BoolType(is_quantity(str(text))),
    "quantity": _quantity,
    "isGreaterThan": _comparison(lambda left, right: left > right),
    "isLessThan": _comparison(lambda left, right: left < right),
    "isSorted": lambda numbers: celtypes.BoolType(all(low <= high for low, high in pairwise(numbers))),
}
"""https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-quantity-library and #kubernetes-list-library"""


@cache
def _environment() -> Any:
    return celpy.Environment()


@cache
def _program(expression: str) -> Any:
    environment = _environment()
    return environment.program(environment.compile(expression), functions=dict(_FUNCTIONS))


def refusals(value: Any, schema: Schema, old: Any = None, path: str = "") -> Iterator[Problem]:
    """What the schema's rules refuse.

    Args:
        value: the object, with defaults filled in and valid by the schema.
        schema: the structural schema with `x-kubernetes-validations`.
        old: the object before an update, or None at creation: rules that name `oldSelf` then do not apply.
        path: the field path of `value`.
    """
    for rule in schema.get("x-kubernetes-validations", ()):
        problem = _check(rule, value, old, path)
        if problem is not None:
            yield problem
    if isinstance(value, dict):
        for key, inner in schema.get("properties", {}).items():
            if key in value:
                before = old.get(key) if isinstance(old, dict) else None
                yield from refusals(value[key], inner, before, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and "items" in schema:
        # Items of a list without keys have no former selves: rules about changes do not apply to them.
        for index, item in enumerate(value):
            same = item if isinstance(old, list) and item in old else None
            yield from refusals(item, schema["items"], same, f"{path}[{index}]")


def _check(rule: Mapping[str, str], value: Any, old: Any, path: str) -> Problem | None:
    about_change = "oldSelf" in rule["rule"]
    if about_change and old is None:
        return None
    if not about_change and old is not None and value == old:
        # What was there before a rule was added stays allowed while it is not touched (CRD ratcheting).
        return None
    if _holds(rule["rule"], value, old):
        return None
    message = rule["message"]
    if "messageExpression" in rule:
        message = str(_program(rule["messageExpression"]).evaluate({"self": celpy.json_to_cel(value)}))
    field = path + rule.get("fieldPath", "")
    if rule["reason"] == "FieldValueForbidden":
        return Problem(field, f"Forbidden: {message}")
    # The API server quotes scalars and leaves objects out.
    quoted = "" if isinstance(value, (dict, list)) else f"{json.dumps(value, ensure_ascii=False)}: "
    return Problem(field, f"Invalid value: {quoted}{message}")


def _holds(rule: str, value: Any, old: Any) -> bool:
    if rule == "self == oldSelf":
        # cel-python cannot compare 1 with "1", which for Kubernetes' CEL are unequal.
        return bool(value == old)
    variables = {"self": celpy.json_to_cel(value)}
    if old is not None:
        variables["oldSelf"] = celpy.json_to_cel(old)
    return bool(_program(rule).evaluate(variables))
