"""What every resource of the API is made of: metadata, conditions, references, quantities."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from penstock.models import Frozen


def _whole_to_text(value: object) -> object:
    """`1` and `"1"` mean the same where Kubernetes has IntOrString. A float does not pass: its digits are not kept."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


IntOrString = Annotated[
    str,
    BeforeValidator(_whole_to_text),
    Field(max_length=32),
    WithJsonSchema(
        {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}], "maxLength": 32}
    ),
]
"""A string that may be written as a whole number, without quotes."""

Quantity = IntOrString
"""A Kubernetes resource quantity, such as `500m` or `1Gi`."""


AUTO: Final = "Auto"
"""Take what was measured."""


class Described(Frozen):
    """A model whose attribute docstrings become the descriptions that `kubectl explain` shows."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ObjectMeta(Frozen):
    """The part of `metadata` that Penstock reads. Kubernetes owns the rest, so unknown fields pass."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True
    )

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class ConditionStatus(StrEnum):
    """`metav1.ConditionStatus`."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Described):
    """`metav1.Condition`."""

    type: str
    """What is said to be so, such as `Ready`."""
    status: ConditionStatus
    reason: str
    """Why, as a constant in CamelCase."""
    message: str = ""
    """Why, for people."""
    last_transition_time: str = ""
    """When `status` last changed: RFC 3339 in UTC."""
    observed_generation: int = 0
    """The `metadata.generation` that this was said of."""


class LocalReference(Described):
    """An object in the same namespace."""

    name: Annotated[str, Field(max_length=253)]
    """Its `metadata.name`."""


class SecretKeyReference(Described):
    """A key of a Secret in the same namespace."""

    name: Annotated[str, Field(max_length=253)]
    """The Secret's `metadata.name`."""
    key: Annotated[str, Field(max_length=253)] = "token"
    """The key in its `data`."""


class CertificateReference(Described):
    """A certificate in a Secret of the same namespace."""

    name: Annotated[str, Field(max_length=253)]
    """The Secret's `metadata.name`."""
    key: Annotated[str, Field(max_length=253)] = "ca.crt"
    """The key in its `data`."""


Manifest = dict[str, Any]
"""A Kubernetes object as it travels. Past the boundary it is one of the types above."""
