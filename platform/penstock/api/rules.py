"""What a schema cannot say, as CEL rules beside the types that they bind.

A rule stands at a model (`self` is the object) or at one of its fields (`self` is the value). The API server checks
them at `kubectl apply`; `penstock.api.admission` checks the same text without a server. A message says what to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from penstock.api import v1alpha1 as api

_SUBDOMAIN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_LABEL_VALUE: Final = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_BASE_URL: Final = r"^https?://[^/?#@ ]+(/[^?# ]*)?$"
_NUMBER: Final = r"^-?[0-9]+(\\.[0-9]+)?$"


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `x-kubernetes-validations`."""

    rule: str
    message: str
    message_expression: str | None = None
    """CEL that makes the message where it can quote what was written; `message` stands in when it fails.

    Only over strings of a maximum length: the API server takes a number turned into text for one of any length, and
    refuses the CRD for what the expression could cost.
    """
    reason: str = "FieldValueInvalid"
    field_path: str | None = None
    """The field to blame, relative to where the rule stands."""

    def as_schema(self) -> dict[str, str]:
        """The entry as Kubernetes spells it."""
        entry = {"rule": self.rule, "message": self.message, "reason": self.reason}
        if self.message_expression is not None:
            entry["messageExpression"] = self.message_expression
        if self.field_path is not None:
            entry["fieldPath"] = self.field_path
        return entry


def _matches(pattern: str, message: str) -> Rule:
    return Rule(f"self.matches('{pattern}')", message)


def _positive_quantity(field: str, example: str) -> tuple[Rule, ...]:
    return (
        Rule(
            "isQuantity(string(self))",
            f"{field} must be a quantity, such as {example}",
            message_expression=f"'{field} must be a quantity, such as {example}: \"' + string(self) + '\" is none'",
        ),
        Rule(
            "!isQuantity(string(self)) || quantity(string(self)).isGreaterThan(quantity('0'))",
            f"{field} must be more than 0, such as {example}",
        ),
    )


def _auto(field: str, low: int, high: int) -> tuple[Rule, ...]:
    return (
        Rule(
            f"string(self) == 'Auto' || (string(self).matches('^[0-9]{{1,6}}$') && "
            f"int(string(self)) >= {low} && int(string(self)) <= {high})",
            f"{field} must be Auto or a whole number from {low} to {high}",
            message_expression=(
                f"'{field} must be Auto or a whole number from {low} to {high}: \"' + string(self) + '\" is neither'"
            ),
        ),
    )


_IS_NUMBER: Final = f"string(self).matches('{_NUMBER}')"

MODEL_RULES: Final[Mapping[type[BaseModel], tuple[Rule, ...]]] = {
    api.InferenceDeployment: (
        Rule(
            "self.metadata.name.size() <= 40 && !self.metadata.name.contains('.')",
            "metadata.name must have at most 40 characters, all of them a-z, 0-9 or -, such as digits-2: "
            "it becomes part of a URL and of other objects' names",
        ),
    ),
    api.InferenceDeploymentSpec: (
        Rule(
            "!has(self.slo) || !string(self.batching.maxDelayMilliseconds).matches('^[0-9]{1,9}$') || "
            "int(string(self.batching.maxDelayMilliseconds)) < self.slo.latencyP99Milliseconds",
            "maxDelayMilliseconds must be less than slo.latencyP99Milliseconds, since a request that waits so long for "
            "its batch breaks the promise: lower the one or raise the other",
            field_path=".batching.maxDelayMilliseconds",
        ),
    ),
    api.Scaling: (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas must not be more than maxReplicas (1 where it is left out): lower the one or raise the other",
            field_path=".minReplicas",
        ),
    ),
}

FIELD_RULES: Final[Mapping[tuple[type[BaseModel], str], tuple[Rule, ...]]] = {
    (api.ModelSource, "storage_uri"): (
        Rule(
            "self.startsWith('file://')",
            "storageUri must start with file://, the only scheme that this release reads, such as "
            "file:///models/digits/1",
        ),
        Rule(
            "!self.startsWith('file://') || self.matches('^file:///[^?#]+$')",
            "storageUri must be file:// and an absolute path, with three slashes in all, such as "
            "file:///models/digits/1",
        ),
    ),
    (api.ModelSource, "digest"): (
        _matches(
            "^sha256:[0-9a-f]{64}$",
            "digest must be sha256: and 64 lower-case hex digits, those that sha256sum prints for the model's "
            "manifest.json; leave it out to take whatever model is there",
        ),
    ),
    (api.ModelSource, "version"): (
        _matches(
            "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
            "version must be one segment of a URL: letters, digits, - _ and . between them, such as 1 or 2026-03.b",
        ),
    ),
    (api.LocalReference, "name"): (
        _matches(_SUBDOMAIN, "name must be that of an object in this namespace: a-z, 0-9, - and ., such as default"),
    ),
    (api.InferenceDeploymentSpec, "pool_ref"): (
        Rule(
            "self.name == oldSelf.name",
            "poolRef cannot be changed: create another InferenceDeployment with the new poolRef, then delete this one",
            reason="FieldValueForbidden",
            field_path=".name",
        ),
    ),
    (api.Resources, "cpu"): _positive_quantity("cpu", "1 or 500m"),
    (api.Resources, "memory"): _positive_quantity("memory", "1Gi or 512Mi"),
    (api.Accelerator, "type"): (
        _matches(_LABEL_VALUE, "type must be the value of a node label: letters, digits, - _ and ., such as nvidia-l4"),
    ),
    (api.Accelerator, "count"): (
        Rule(_IS_NUMBER, 'count must be a whole number or a share of one accelerator in decimals, such as 1 or "0.5"'),
        Rule(
            f"!{_IS_NUMBER} || double(string(self)) > 0.0",
            'count must be more than 0, such as 1 or "0.5"; for no accelerator leave accelerator out',
        ),
        Rule(
            f"!{_IS_NUMBER} || double(string(self)) <= 1.0 || string(self).matches('^[0-9]+(\\\\.0+)?$')",
            'count above 1 must be whole, such as 2: only a share of a single accelerator can be a fraction, such as "0.5"',
        ),
        Rule(
            f"!{_IS_NUMBER} || string(self).matches('^-?[0-9]+(\\\\.[0-9]{{1,2}})?$')",
            'count must have at most two decimals, such as "0.25"',
        ),
    ),
    (api.Batching, "max_batch_size"): _auto("maxBatchSize", 1, 4096),
    (api.Batching, "max_delay_milliseconds"): _auto("maxDelayMilliseconds", 0, 10_000),
    (api.Scaling, "target_in_flight_requests"): _auto("targetInFlightRequests", 1, 100_000),
    (api.Cache, "max_bytes"): _positive_quantity("maxBytes", "64Mi"),
    (api.Tracing, "sampling_ratio"): (
        Rule(
            "string(self).matches('^(0(\\\\.[0-9]+)?|1(\\\\.0+)?)$')",
            'samplingRatio must be a decimal from "0" (no request) to "1" (every request), such as "0.01"',
        ),
    ),
    (api.ExistingRayCluster, "address"): (
        _matches(
            _BASE_URL,
            "address must be the http:// or https:// URL of the Ray dashboard, without user, query or fragment, such as "
            "http://ray-head:8265",
        ),
        Rule(
            "self == oldSelf",
            "address cannot be changed, since what runs at the old one would be lost: create another ServingPool and "
            "move the deployments there",
            reason="FieldValueForbidden",
        ),
    ),
    (api.ExistingRayCluster, "serve_address"): (
        _matches(
            _BASE_URL,
            "serveAddress must be the http:// or https:// URL of Ray Serve's proxy, without user, query or fragment, "
            "such as http://ray-head:8000",
        ),
    ),
    (api.SecretKeyReference, "name"): (
        _matches(_SUBDOMAIN, "name must be that of a Secret in this namespace: a-z, 0-9, - and ., such as ray-token"),
    ),
    (api.SecretKeyReference, "key"): (
        _matches(
            "^[-._a-zA-Z0-9]+$", "key must be a key of the Secret's data: letters, digits, - _ and ., such as token"
        ),
    ),
}
